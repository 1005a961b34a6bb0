"""The model of an earlier run, from its folder or from its record."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from temper.errors import ModelError
from temper.models.adapters import AnyAdapter
from temper.models.positions import resample_positions
from temper.models.weight_entries import load_exactly
from temper.models.weight_files import check_digest
from temper.records import RunFolder
from temper.safe_load import read_json
from temper.spec import read_yaml
from temper.storage import beside, fetched, is_remote


@dataclass(frozen=True)
class FormerRun:
    """A run that has a checkpoint."""

    where: str
    checkpoint: Path
    sha256: str | None
    """Of the checkpoint, where a record knows it."""
    classes: dict[str, list[str]]
    adapter: dict[str, Any] | None
    """What the recipe says of its adapter."""
    backbone: str | None = None
    """Its name, where the recipe says it."""

    def read(self, sha256: str | None) -> dict[str, Tensor]:
        """All weights and buffers of its model; ``sha256`` is another digest that the file has to have.

        Raises:
            ModelError: no checkpoint, a damaged one, or another digest.
        """
        check_digest(self.checkpoint, self.sha256)
        check_digest(self.checkpoint, sha256)
        try:
            return load_file(self.checkpoint)
        except (OSError, SafetensorError):
            raise _unfinished(self.where) from None

    def backbone_of(self, tensors: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
        """The state dict of its backbone with its adapter merged in; ``backbone`` is one without.

        Raises:
            ModelError: weights of another backbone, or an adapter that cannot be merged.
        """
        own = {
            name.removeprefix("backbone."): tensor
            for name, tensor in tensors.items()
            if name.startswith("backbone.")
        }
        own = resample_positions(own, backbone, self.where)
        if self.adapter is None:
            return own
        try:
            adapter = TypeAdapter[AnyAdapter](AnyAdapter).validate_python(self.adapter)
        except ValidationError:
            raise ModelError(
                f"model.weights: {self.where} has an adapter that this version does not know"
            ) from None
        adapted = copy.deepcopy(backbone)
        with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
            adapter.attach(adapted)
        load_exactly(adapted, own, self.where)
        return adapter.fold(adapted).state_dict()


def find_run(weights: str) -> FormerRun | None:
    """The run whose folder or ``record.json`` this is; ``None`` for any other file.

    Raises:
        ModelError: a folder without a checkpoint, or a JSON file that is no record of a run.
    """
    path = fetched(Path(weights)) if is_remote(weights) else Path(weights)
    if path.is_dir():
        run = RunFolder(path)
        recipe = read_yaml(run.recipe) if run.recipe.exists() else {}
        return _run(weights, run.checkpoint / "model.safetensors", None, recipe)
    if path.suffix != ".json":
        return None
    try:
        record = read_json(path)
        file = record["files"]["checkpoint"]
        return _run(weights, beside(path.parent, file["path"]), str(file["sha256"]), record["recipe"])
    except FileNotFoundError:
        raise ModelError(f"model.weights: {path}: no such record") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"model.weights: {path} is not the record of a temper run") from None


def _run(where: str, checkpoint: Path, sha256: str | None, recipe: Mapping[str, Any]) -> FormerRun:
    try:
        state = read_json(checkpoint.parent / "state.json")
        classes, sha256 = state["classes"], sha256 or state.get("best_sha256")
        model = recipe.get("model") or {}
        names = {str(task): list(own) for task, own in classes.items()}
        return FormerRun(where, checkpoint, sha256, names, model.get("adapter"), model.get("backbone"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _unfinished(where) from None


def _unfinished(where: str) -> ModelError:
    return ModelError(f"model.weights: {where} holds no finished checkpoint of a temper run")
