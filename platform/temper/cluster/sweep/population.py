"""Population-based training: weak trials take over the weights and settings of strong ones."""

import random
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from temper.cluster.sweep.sparing import Sparing
from temper.errors import CheckpointError
from temper.recipe import Recipe, build_recipe, load_recipe
from temper.records import RunFolder, append_line, read_rows, write_atomic
from temper.search import BASELINE, MUTABLE, PopulationTraining, SearchSpace
from temper.seeds import derive_seed
from temper.spec import dump_yaml
from temper.training import read_state

CARRIED = ("last", "checkpoint", "metrics.jsonl")
"""Files of a run folder that another trial takes over."""


def mutable_values(space: SearchSpace, recipe: Recipe) -> dict[str, float]:
    """The parameters that ``space`` lets a run change during training, with their values in ``recipe``."""
    resolved, found = recipe.resolved(), {}
    for name in MUTABLE:
        node: Any = resolved if name in space.parameters else None
        for part in name.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if node is not None:
            found[name] = float(node)
    return found


class Population(Sparing, PopulationBasedTraining):  # type: ignore[misc]  # Ray's classes are untyped
    """Ray Tune's, with a baseline beside it and every draw from the space's seed."""

    def __init__(self, space: SearchSpace, chosen: PopulationTraining, rung: str) -> None:
        names = [name for name in MUTABLE if name in space.parameters]
        self._space, self._num_changes = space, 0
        super().__init__(
            time_attr="epoch",
            metric=rung,
            mode="max",
            perturbation_interval=chosen.every_epochs,
            hyperparam_mutations={"point": {name: self._draw_of(name) for name in names}},
            quantile_fraction=chosen.quantile,
            resample_probability=chosen.resample_prob,
            log_config=False,
        )

    def _draw_of(self, name: str) -> Any:
        def draw() -> float:
            seed = derive_seed(self._space.seed, "population", name, self._num_changes)
            return float(self._space.parameters[name].draw(np.random.default_rng(seed)))

        return draw

    def choose_trial_to_run(self, tune_controller: Any, **options: Any) -> Any:
        for trial in tune_controller.get_trials():
            if trial.config["trial"] == BASELINE and trial.status == "PENDING":
                return trial
        return super().choose_trial_to_run(tune_controller, **options)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._num_changes += 1
        state = random.getstate()
        random.seed(derive_seed(self._space.seed, "population", self._num_changes))
        try:
            config, operations = super()._get_new_config(trial, trial_to_clone)
        finally:
            random.setstate(state)
        for name, value in config["point"].items():
            low, high = self._space.parameters[name].bounds or (value, value)
            config["point"][name] = min(max(float(value), low), high)
        donor = trial_to_clone.config["trial"]
        config |= {name: trial.config[name] for name in ("trial", "own")}
        config |= {"donor": donor, "change": uuid.uuid4().hex}
        return config, operations


def take_over(config: Mapping[str, Any], run: RunFolder) -> Recipe:
    """The recipe with which the trial continues after taking over the state that Tune gives it.

    Raises:
        CheckpointError: Tune gives it none.
    """
    if not config.get("change"):
        return _own_recipe(config, run)
    donor = build_recipe(config["recipe"], config["point"])
    own = Recipe.model_validate(config["own"])
    recipe = donor.model_copy(update={"name": own.name, "tracking": own.tracking})
    if any(line["change"] == config["change"] for line in read_lineage(run)):
        return recipe  # its process died after it
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        raise CheckpointError(f"{run.path}: no checkpoint to copy from trial {config['donor']}")
    with checkpoint.as_directory() as folder:
        _replace(run, Path(folder), recipe)
    write_atomic(run.recipe, dump_yaml(recipe.resolved()))
    change = {
        "change": config["change"],
        "epoch": read_state(run.last).next_epoch,
        "from": config["donor"],
        "overrides": dict(config["point"]),
    }
    append_line(run.lineage, change)
    return recipe


def _own_recipe(config: Mapping[str, Any], run: RunFolder) -> Recipe:
    """The recipe of the point or, in a later session, the one that the trial had reached."""
    recipe = Recipe.model_validate(config["recipe"])
    if not (run.lineage.exists() and (run.last / "state.json").exists()):
        return recipe
    kept = load_recipe(run.recipe)
    if read_state(run.last).recipe_hash == kept.hash:
        return kept
    # Cut short in the middle of taking over: neither the one nor the other.
    for name in (*CARRIED, run.lineage.name):
        _remove(run.path / name)
    return recipe


def _replace(run: RunFolder, source: Path, recipe: Recipe) -> None:
    """Replace this trial's files by another's, under the recipe with which it continues."""
    for name in CARRIED:
        _remove(run.path / name)
        if (source / name).is_dir():
            shutil.copytree(source / name, run.path / name)
        elif (source / name).exists():
            shutil.copy(source / name, run.path / name)
    for folder in (run.checkpoint, run.last):
        state = read_state(folder).model_copy(update={"recipe_hash": recipe.hash})
        write_atomic(folder / "state.json", state.model_dump_json(indent=2))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def hand_on(run: RunFolder, metrics: Mapping[str, Any]) -> None:
    """Report an epoch with everything that another trial needs to continue from it."""
    with tempfile.TemporaryDirectory() as folder:
        for name in CARRIED:
            source = run.path / name
            if source.is_dir():
                shutil.copytree(source, Path(folder) / name)
            elif source.exists():
                shutil.copy(source, Path(folder) / name)
        tune.report(dict(metrics), checkpoint=tune.Checkpoint.from_directory(folder))


def read_lineage(run: RunFolder) -> list[dict[str, Any]]:
    """Each time that the trial took over from another."""
    return read_rows(run.lineage)
