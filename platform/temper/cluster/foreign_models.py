"""Models of foreign origin: the function that makes one, and what tells it from another."""

import hashlib
import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import torch
from torch import Tensor, nn

from temper.errors import ModelError, RecipeError
from temper.models import TaskModel


class SourceAnswers(nn.Module):
    """The source head of a model, which is the one that a weights file fills."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images, task="source")
        return logits


def build_foreign(name: str) -> nn.Module:
    """Call the function that ``module:function`` or ``file.py:function`` names.

    Raises:
        RecipeError: no such module, file or function.
        ModelError: it fails, or returns something else than a torch module.
    """
    where, _, function = name.rpartition(":")
    module = _import(where)
    build = getattr(module, function, None)
    if not callable(build):
        raise RecipeError(f"model: {where} has no function '{function}'")
    try:
        model = build() if not isinstance(build, nn.Module) else build
    except Exception as problem:
        raise ModelError(f"{name}: the function failed ({type(problem).__name__}: {problem})") from problem
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{name}: expected a torch.nn.Module (images in [0,1] to logits), got {type(model).__name__}"
        )
    return model


class _AsItStands(SourceFileLoader):
    """Compiles the file anew: a kept ``.pyc`` of the same second and size would pass for it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import(where: str) -> ModuleType:
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        path = Path(where)
        if not path.is_file():
            raise RecipeError(f"model: {where}: no such file")
        loader = _AsItStands(path.stem, str(path))
        spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Beside the file's own helpers, as if it had been run.
        sys.path.insert(0, str(path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.resolve().parent))
        return module
    except RecipeError:
        raise
    except Exception as problem:
        raise RecipeError(
            f"model: {where} cannot be imported ({type(problem).__name__}: {problem})"
        ) from problem


def digest_of_model(model: nn.Module) -> str:
    """SHA-256 over the names and values of its parameters and buffers, and its structure."""
    digest = hashlib.sha256(str(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
