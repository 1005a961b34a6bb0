"""Training a recipe from code."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.cluster.launch import launch
from temper.cluster.workers import OnEpoch
from temper.evaluation.cascade import OnProgress
from temper.recipe import Recipe, build_recipe, load_recipe
from temper.records import EvaluationRecord, RunFolder, read_record
from temper.storage import fetched_state
from temper.training import TrainState, read_last


@dataclass(frozen=True)
class TrainedRun:
    """A finished run."""

    path: Path
    """Its folder, for `temper evaluate`, `predict`, `export` and `merge`."""
    state: TrainState
    """The state of its training: the best epoch and its metrics; ``stopped`` if it ended early."""
    record: EvaluationRecord | None
    """``None`` if it was not evaluated."""
    probe: EvaluationRecord | None = None
    """The record of the linear probe on the start, the baseline to beat; ``None`` if there is no probe."""


def train(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    evaluate: bool = True,
    probe: bool = True,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    on_trained: Callable[[TrainState], None] | None = None,
    on_progress: OnProgress | None = None,
    verbose: bool = False,
    go_on: bool = False,
) -> TrainedRun:
    """Train ``recipe`` (loaded, or a YAML file) in ``out`` (default ``runs/NAME``), and evaluate the result.

    ``overrides`` are dotted, as in ``{"objective.alpha": 0.3}``. An interrupted run resumes. A finished run
    is an error; with ``resume`` it is evaluated if necessary, and returned. With ``probe``, the linear probe
    on a pretrained start is evaluated too. ``on_epoch``, ``on_trained`` and ``on_progress`` (of the
    evaluation) report progress. ``go_on`` is the earlier name of ``resume``.

    Raises:
        TemperError: the recipe, its images, its weights or the folder cannot be used, or the run cannot
            be resumed.
    """
    spec = _recipe_of(recipe, overrides)
    folder = Path(out) if out is not None else Path("runs") / spec.name
    state = _trained(folder, spec) if resume or go_on else None
    done = RunFolder(folder).record
    if state is not None and evaluate and done.exists():
        return TrainedRun(folder, state, read_record(done), _probe(folder) if probe else None)
    state = state or launch(spec, folder, on_epoch=on_epoch, verbose=verbose)
    if on_trained is not None:
        on_trained(state)
    if not evaluate:
        return TrainedRun(folder, state, None)
    record = evaluate_run(folder, on_progress=on_progress)
    return TrainedRun(folder, state, record, _probe(folder) if probe else None)


def evaluate_run(
    run: Path,
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
    *,
    on_progress: OnProgress | None = None,
    verbose: bool = False,
) -> EvaluationRecord:
    """Evaluate a finished run in this process, or as a task on the cluster that ``RAY_ADDRESS`` names.

    Raises:
        TemperError: there is no finished run, or it already has a record.
    """
    changes = dict(overrides or {})
    if os.environ.get("RAY_ADDRESS"):
        from temper.cluster.evaluation_tasks import evaluate_on_cluster

        return evaluate_on_cluster(run, changes, out, verbose=verbose)
    from temper.cluster.evaluate import evaluate_run as evaluate_here

    return evaluate_here(run, changes, out=out, on_progress=on_progress)


def _probe(folder: Path) -> EvaluationRecord | None:
    """The record of the run's own linear probe, created if missing; ``None`` without a probe."""
    run = RunFolder(fetched_state(RunFolder(folder).probe))
    if run.record.exists():
        return read_record(run.record)
    return evaluate_run(RunFolder(folder).probe) if run.recipe.exists() else None


def _recipe_of(recipe: Recipe | str | Path, overrides: Mapping[str, Any] | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return build_recipe(recipe.resolved(), overrides) if overrides else recipe
    return load_recipe(recipe, overrides)


def _trained(folder: Path, recipe: Recipe) -> TrainState | None:
    """The state of the same recipe's run in ``folder``, if its training has ended."""
    state = read_last(RunFolder(folder))
    return state if state is not None and state.is_settled and state.recipe_hash == recipe.hash else None
