"""Weights from files: safetensors, state dicts without code in them, and former runs."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from temper.errors import CheckpointError, ModelError
from temper.models.task_model import TaskModel
from temper.records import RunFolder, write_atomic


def save_model(model: TaskModel, path: Path) -> None:
    """Write all weights and buffers as safetensors, whole or not at all."""
    write_atomic(path, save({name: value.contiguous().cpu() for name, value in model.state_dict().items()}))


def load_model_state(model: TaskModel, path: Path) -> None:
    """Load a checkpoint of this very model.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    try:
        _load_exactly(model, load_file(path), str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (SafetensorError, ModelError) as problem:
        raise CheckpointError(f"{path}: not a checkpoint of this model ({problem})") from None


def load_start(model: TaskModel, weights: str, classes: Mapping[str, list[str]]) -> None:
    """Start ``model`` from a weights file or from a former run.

    From a run the backbone is taken, and each head whose classes are those of one of our tasks: the
    target head of a source run becomes our source head.

    Raises:
        ModelError: no such file, not weights, or weights of another backbone.
    """
    path = Path(weights)
    if path.is_dir():
        _load_run(model, path, classes)
    else:
        _load_exactly(model.backbone, _without_classifier(model.backbone, _read_weights(path)), weights)


def _load_run(model: TaskModel, path: Path, classes: Mapping[str, list[str]]) -> None:
    folder = RunFolder(path).checkpoint
    try:
        tensors = load_file(folder / "model.safetensors")
        their_classes: dict[str, list[str]] = json.loads((folder / "state.json").read_text())["classes"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        raise ModelError(f"model.weights: {path} holds no finished checkpoint of a temper run") from None
    backbone = {
        name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")
    }
    _load_exactly(model.backbone, backbone, str(path))
    for task, head in model.heads.items():
        for their_task, their_names in their_classes.items():
            if their_names == classes[task]:
                prefix = f"heads.{their_task}."
                head.load_state_dict(
                    {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                )


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"model.weights: {path}: no such file or run folder") from None
    except Exception as problem:  # torch raises many kinds for a file that is not a plain state dict
        reason = str(problem).splitlines()[0][:200]
        raise ModelError(
            f"model.weights: {path} is not a safetensors file or plain state dict ({reason})"
        ) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(f"model.weights: {path} holds no state dict (names to tensors)")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _without_classifier(backbone: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the last linear layer of a torchvision classifier, which our heads replace."""
    cut = [name for name, module in backbone.named_modules() if isinstance(module, nn.Identity) and name]
    return {name: t for name, t in tensors.items() if not any(name.startswith(f"{c}.") for c in cut)}


def _load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    expected = module.state_dict()
    # Weights files made before PyTorch 0.4.1 lack this counter, which nothing but momentum=None reads.
    missing = sorted(n for n in expected if n not in tensors and not n.endswith("num_batches_tracked"))
    unexpected = sorted(name for name in tensors if name not in expected)
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    problems = [
        f"{title}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", reshaped))
        if names
    ]
    if problems:
        raise ModelError(f"{where}: weights of another backbone; {'; '.join(problems)}")
    module.load_state_dict(tensors, strict=False)
