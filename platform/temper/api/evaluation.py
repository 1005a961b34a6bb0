"""Evaluating from code: a finished run, or a model that was trained anywhere."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from temper.api.runs import evaluate_run
from temper.cluster.evaluate import evaluate as evaluate_opened
from temper.data import Images, ImageView, ShardSet, load_images, stratified_subset
from temper.errors import DataError, UsageError
from temper.evaluation import EvaluationSpec
from temper.evaluation.cascade import OnProgress
from temper.evaluation.evaluate import Relatives
from temper.host import choose_device
from temper.records import DataRecord, EvaluationRecord, RunFolder, refuse_second
from temper.run.target import Claim, EvaluationTarget, fingerprint_of
from temper.spec import Channels, Geometry, Threat, validate
from temper.storage import fetched

Data = str | Path | tuple[Any, Any] | Iterable[tuple[Any, Any]]


@overload
def evaluate(
    model: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> EvaluationRecord: ...
@overload
def evaluate(
    model: nn.Module,
    data: Data,
    *,
    eps: float,
    norm: Geometry = "linf",
    channels: Channels = "colour",
    suite: str = "standard",
    name: str = "model",
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    seed: int = 0,
    use_gpu: bool | Literal["auto"] = "auto",
    out: str | Path | None = None,
    relatives: Relatives | None = None,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> EvaluationRecord: ...
def evaluate(model: nn.Module | str | Path, *arguments: Any, **settings: Any) -> EvaluationRecord:
    """Evaluate a finished run or any torch module, and return its record.

    **A run** is given by its folder, and evaluated by its recipe with ``overrides``, such as
    ``{"evaluation.suite": "standard"}``. The record is written into ``out``, or beside the checkpoint.

    **A module** maps images (B,C,H,W) in [0,1] to logits, normalization inside. ``data``: a folder of
    shards (its test split, at ``image_size``); or images and labels, arrays or tensors (N,C,H,W) and (N,),
    uint8 or floats in [0,1]; or batches of those, such as a DataLoader. Floats are rounded to 8 bits, as
    image files have them. ``channels``: ``grey`` changes the three channels of grey images alike.
    ``suite``: ``quick``, ``standard``, ``full`` or a YAML file. ``settings`` are
    further fields of the recipe's ``evaluation``: ``curve``, ``others``, ``corruptions``, ``num_workers`` and
    so on. With ``out``, record.json and its evidence are written there, ready for ``temper.leaderboard``,
    and an interrupted evaluation resumes.

    Raises:
        TemperError: the message says which argument is wrong, and what is allowed.
    """
    if isinstance(model, str | Path):
        return _evaluate_run(Path(model), *arguments, **settings)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"model: expected a torch.nn.Module, or the folder of a run, got {type(model).__name__}"
        )
    return _evaluate_module(model, *arguments, **settings)


def _evaluate_run(
    run: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> EvaluationRecord:
    return evaluate_run(run, overrides, None if out is None else Path(out), on_progress=on_progress)


def _evaluate_module(
    model: nn.Module,
    data: Data,
    *,
    eps: float,
    norm: Geometry = "linf",
    channels: Channels = "colour",
    suite: str = "standard",
    name: str = "model",
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    seed: int = 0,
    use_gpu: bool | Literal["auto"] = "auto",
    out: str | Path | None = None,
    relatives: Relatives | None = None,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> EvaluationRecord:
    folder = None if out is None else Path(out)
    if folder is not None:
        refuse_second(RunFolder(fetched(folder)))
    spec = validate(EvaluationSpec, {"suite": suite, **settings}, "evaluate")
    threat = validate(Threat, {"norm": norm, "eps": eps, "channels": channels}, "evaluate")
    spec.plan(threat, seed)  # a wrong suite is told before images are read
    images, described = _open(data, classes, image_size, spec.max_images, seed)
    device = choose_device(use_gpu)
    target = EvaluationTarget(
        model=model.to(device),
        test=images,
        device=device,
        claim=Claim(name, seed, {"model": type(model).__name__}, described, threat),
        settings=spec,
        view=ImageView(described.image_size),
        shards={"target": ShardSet.open(Path(data))} if isinstance(data, str | Path) else {},
        kin=relatives or {},
        use_gpu=use_gpu,
    )
    return evaluate_opened(lambda: target, folder, on_progress)


def _open(
    data: Data, classes: Sequence[str] | None, image_size: int | None, max_images: int | None, seed: int
) -> tuple[Images, DataRecord]:
    if isinstance(data, str | Path):
        shards = ShardSet.open(Path(data))
        if image_size is None:
            raise UsageError("image_size: shards need one, the height and width that the model sees")
        images = load_images(shards, "test", ImageView(image_size))
        name, fingerprint, named = shards.manifest.name, shards.fingerprint, shards.classes
    else:
        images = _from_arrays(data)
        count = int(images.labels.max()) + 1
        named = list(classes) if classes is not None else [str(label) for label in range(count)]
        if len(named) < count:
            raise UsageError(f"classes: {len(named)} names, but labels go up to {count - 1}")
        name, fingerprint = "arrays", fingerprint_of(images)
    chosen = stratified_subset(images.labels, max_images, seed)
    images = Images(images.images[chosen], images.labels[chosen], images.rows[chosen])
    return images, DataRecord(
        name=name,
        fingerprint=fingerprint,
        classes=named,
        split="test",
        num_images=len(chosen),
        image_size=images.images.shape[-1],
    )


def _from_arrays(data: Any) -> Images:
    is_pair = isinstance(data, tuple) and len(data) == 2
    batches = [data] if is_pair else list(data)
    if not batches:
        raise DataError("data: no images")
    pixels = np.concatenate([_as_uint8(images) for images, _ in batches])
    labels = np.concatenate([np.asarray(torch.as_tensor(labels).cpu()) for _, labels in batches])
    if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"data: expected integer labels ({len(pixels)},), got {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.min() < 0:
        raise DataError(f"data: labels must be classes from 0, got {labels.min()}")
    return Images(pixels, labels.astype(np.int64), np.arange(len(pixels)))


def _as_uint8(images: Any) -> np.ndarray:
    tensor: Tensor = torch.as_tensor(images).detach().cpu()
    if tensor.ndim != 4 or not len(tensor):
        raise DataError(f"data: expected images (N,C,H,W), got {tuple(tensor.shape)}")
    if tensor.dtype == torch.uint8:
        return tensor.numpy()
    low, high = float(tensor.min()), float(tensor.max())
    if not (tensor.is_floating_point() and low >= 0 and high <= 1):
        raise DataError(
            f"data: images are uint8, or floats in [0,1]; got {tensor.dtype} from {low:g} to {high:g} "
            "(normalization belongs in the model)"
        )
    return (tensor * 255).round().to(torch.uint8).numpy()
