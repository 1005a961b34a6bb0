"""Where a run stands, and how it is saved and restored."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from temper.errors import CheckpointError
from temper.models import TaskModel, load_model_state, save_model
from temper.records import RunFolder, write_atomic
from temper.spec import Spec


class Passes(Spec):
    """Images sent through the model and back, counted per image over all ranks."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(forward=self.forward + other.forward, backward=self.backward + other.backward)


class TrainState(Spec):
    """``state.json``: which run this is, how far it is, and its best epoch so far."""

    recipe_hash: str
    classes: dict[str, list[str]]
    fingerprints: dict[str, str]
    start_weights: str | None
    """Where the run started from: a file or run folder, ``pretrained``, or ``null`` for a random start."""
    num_epochs: int
    next_epoch: int = 0
    best_epoch: int | None = None
    best_metrics: dict[str, float] = Field(default_factory=dict)
    num_trained_params: int = 0
    """Parameters that were trainable in any phase so far."""
    train_s: float = 0.0
    device: str = "cpu"
    passes: Passes = Passes()

    @property
    def is_finished(self) -> bool:
        return self.next_epoch >= self.num_epochs


def read_state(folder: Path) -> TrainState:
    """Read ``state.json`` of a checkpoint folder.

    Raises:
        CheckpointError: missing, or not a state.
    """
    path = folder / "state.json"
    try:
        return TrainState.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint here; `temper train RECIPE` makes one") from None
    except (OSError, ValidationError) as problem:
        raise CheckpointError(f"{path}: not a checkpoint's state ({problem})") from None


def save_checkpoint(
    run: RunFolder,
    state: TrainState,
    model: TaskModel,
    optimizer: torch.optim.Optimizer,
    previous: TrainState,
) -> None:
    """Write the newest epoch under ``last/`` and, if it is the best so far, under ``checkpoint/``.

    The state is written after the weights it speaks of, each file by rename, and the weights carry
    their epoch in their name: a crash at any moment leaves the former checkpoint whole.
    """
    if state.best_epoch == state.next_epoch - 1:
        save_model(model, run.checkpoint / "model.safetensors")
    write_atomic(run.checkpoint / "state.json", state.model_dump_json(indent=2))
    name = f"epoch-{state.next_epoch:05d}"
    save_model(model, run.last / f"{name}.model.safetensors")
    _save_optimizer(optimizer, run.last / f"{name}.optimizer.safetensors")
    write_atomic(run.last / "state.json", state.model_dump_json(indent=2))
    for stale in run.last.glob(f"epoch-{previous.next_epoch:05d}.*"):
        stale.unlink()


def restore(run: RunFolder, fresh: TrainState, model: TaskModel) -> TrainState:
    """The state from which to go on: that of ``last/`` if there is one, else ``fresh``.

    Raises:
        CheckpointError: the folder holds another run, or the images have changed since.
    """
    if not (run.last / "state.json").exists():
        return fresh
    state = read_state(run.last)
    if state.recipe_hash != fresh.recipe_hash:
        raise CheckpointError(
            f"{run.path}: holds a run of another recipe; choose another --out, or remove it"
        )
    if state.fingerprints != fresh.fingerprints:
        raise CheckpointError(
            f"{run.path}: the images have changed since this run began; choose another --out"
        )
    load_model_state(model, run.last / f"epoch-{state.next_epoch:05d}.model.safetensors")
    return state


def restore_optimizer(run: RunFolder, state: TrainState, optimizer: torch.optim.Optimizer) -> None:
    """Give a phase that is gone on with the optimizer state it had."""
    path = run.last / f"epoch-{state.next_epoch:05d}.optimizer.safetensors"
    if not path.exists():
        raise CheckpointError(f"{path}: the optimizer's state is missing; remove {run.last} to start afresh")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    packed = optimizer.state_dict()
    slots: dict[int, dict[str, Any]] = {}
    for key, value in load_file(path).items():
        index, _, slot = key.partition(".")
        if int(index) >= len(parameters):
            raise CheckpointError(
                f"{path}: saved for {index} parameters, this phase trains {len(parameters)}"
            )
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({**packed, "state": slots})


def _save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if value is not None:
                tensors[f"{index}.{slot}"] = torch.as_tensor(value).detach().cpu().contiguous()
    write_atomic(path, save(tensors))
