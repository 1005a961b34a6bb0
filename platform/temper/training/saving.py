"""Saving a run's latest position under ``last/``, and restoring it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from temper.errors import CheckpointError
from temper.models import TaskModel, load_model_state, save_model
from temper.recipe import Recipe, load_recipe
from temper.records import RunFolder, hash_of_recipe, sha256_of, write_atomic
from temper.spec import read_yaml
from temper.storage import named
from temper.training.state import TrainState, read_state

Parts = dict[str, dict[str, Tensor]]
"""Name of a file under ``last/`` -> its tensors."""


def read_last(run: RunFolder) -> TrainState | None:
    """The run's state; ``None`` where no epoch has been saved.

    Raises:
        CheckpointError: its state is damaged.
    """
    if not (run.last / "state.json").exists():
        return None
    return read_state(run.last, advice=_anew(run))


def save_checkpoint(
    run: RunFolder, state: TrainState, parts: Parts, best: TaskModel | None = None
) -> TrainState:
    """Write the newest position under ``last/`` and, where an epoch has ended, ``checkpoint/``.

    ``parts`` is all that the next step continues from; ``best`` is the model as it is validated, where the
    epoch is the best so far. The state is written after the weights it speaks of, each file by rename, and
    the weights carry their position in their name: a crash at any moment leaves the former checkpoint whole.
    Returns the state as it was written.
    """
    written = {name: tensors for name, tensors in parts.items() if tensors}
    state = state.model_copy(update={"parts": sorted(written), "sha256": {}})
    if best is not None:
        state = state.model_copy(update=save_best(run, best))
    if state.underway is None:
        _write_state(run.checkpoint, state)
    for name, tensors in written.items():
        content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        state.sha256[name] = hashlib.sha256(content).hexdigest()
        write_atomic(_part_of(run, state, name), content)
    _write_state(run.last, state)
    for path in run.last.glob("epoch-*"):
        if not path.name.startswith(f"{state.stem}."):
            path.unlink(missing_ok=True)
    return state


def save_best(run: RunFolder, model: TaskModel) -> dict[str, str]:
    """Write ``model`` as the best one so far; what a state has to say of it."""
    path = run.checkpoint / "model.safetensors"
    save_model(model, path)
    return {"best_sha256": sha256_of(path)}


def recipe_of(run: RunFolder, state: TrainState, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe that the run was trained with, changed by ``overrides``.

    Raises:
        RecipeError: it cannot be read, or changed so.
        CheckpointError: another one lies there: what it leaves out would be taken for the default.
    """
    recipe = load_recipe(run.recipe, overrides)
    if hash_of_recipe(read_yaml(run.recipe)) != state.recipe_hash:
        raise CheckpointError(
            f"{named(run.recipe)}: not the recipe that this run was trained with; put that back, and change "
            "settings of the evaluation with --set"
        )
    return recipe


def load_best(run: RunFolder, state: TrainState, model: TaskModel) -> None:
    """Give ``model`` the weights of the best epoch.

    Raises:
        CheckpointError: as ``check_best``, or of another model.
    """
    check_best(run, state)
    load_model_state(model, run.checkpoint / "model.safetensors")


def check_best(run: RunFolder, state: TrainState) -> None:
    """See that the weights of the best epoch are those that were saved.

    Raises:
        CheckpointError: missing or damaged.
    """
    path, problem = run.checkpoint / "model.safetensors", ""
    if not path.is_file():
        problem = "missing"
    elif state.best_sha256 not in (None, sha256_of(path)):
        problem = "damaged (other bytes than were saved)"
    if problem:
        raise CheckpointError(f"{named(path)}: {problem}; put it back, or train again with another --out")


def _part_of(run: RunFolder, state: TrainState, name: str) -> Path:
    return run.last / f"{state.stem}.{name}.safetensors"


def save_last(run: RunFolder, state: TrainState) -> None:
    """Write how far a run is that has trained no further."""
    former = read_last(run)
    if former is not None and former.stem == state.stem:
        files = {"parts": former.parts, "sha256": former.sha256}
    else:
        files = {"parts": None, "sha256": {}}
    _write_state(run.last, state.model_copy(update=files))


def save_state(run: RunFolder, state: TrainState) -> None:
    """Write what has become known of a run that has trained no further."""
    _write_state(run.checkpoint, state)
    save_last(run, state)


def _write_state(folder: Path, state: TrainState) -> None:
    write_atomic(folder / "state.json", state.model_dump_json(indent=2))


def restore(run: RunFolder, fresh: TrainState) -> TrainState:
    """The state from which to resume: that of ``last/`` if there is one, else ``fresh``.

    Raises:
        CheckpointError: the folder holds another run, or the images have changed since.
    """
    state = read_last(run)
    if state is None:
        return fresh
    if state.recipe_hash != fresh.recipe_hash:
        raise CheckpointError(
            f"{run.path}: holds a run of another recipe; choose another --out, or remove it"
        )
    if state.fingerprints != fresh.fingerprints:
        raise CheckpointError(
            f"{run.path}: the images have changed since this run began; choose another --out"
        )
    return state


def restore_model(run: RunFolder, state: TrainState, model: TaskModel) -> None:
    """Give ``model`` the weights of ``state``, where there are any.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    if state.has_begun:
        _read_part(run, state, "model")
        load_model_state(model, _part_of(run, state, "model"))


def read_parts(run: RunFolder, state: TrainState) -> Parts:
    """All parts of ``last/`` but the model, by their names; what had no tensors is not among them.

    Raises:
        CheckpointError: missing, or damaged.
    """
    names = state.parts
    if names is None:
        found = run.last.glob(f"{state.stem}.*.safetensors")
        names = [path.name.removeprefix(f"{state.stem}.").removesuffix(".safetensors") for path in found]
    return {name: _read_part(run, state, name) for name in names if name != "model"}


def _read_part(run: RunFolder, state: TrainState, name: str) -> dict[str, Tensor]:
    path = _part_of(run, state, name)
    try:
        if not path.is_file():
            raise SafetensorError("no such file" if not path.exists() else "not a regular file")
        content = path.read_bytes()
        if state.sha256.get(name, digest := hashlib.sha256(content).hexdigest()) != digest:
            raise SafetensorError("other bytes than were saved")
        return load(content)
    except (OSError, SafetensorError) as problem:
        raise CheckpointError(f"{path}: missing or damaged ({problem}); {_anew(run)}") from None


def _anew(run: RunFolder) -> str:
    return f"remove {run.last} and run the same command again to start over"
