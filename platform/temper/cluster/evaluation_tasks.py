"""Evaluations as tasks on the cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from temper.cluster.evaluate import evaluate_run
from temper.cluster.resources import Share
from temper.cluster.runtime import result_of, start_ray
from temper.recipe import Recipe, load_recipe
from temper.records import EvaluationRecord, RunFolder
from temper.storage import fetched_state, portable


def evaluate_all(
    runs: Sequence[RunFolder], recipe: Recipe, on_done: Callable[[int], None] | None = None
) -> None:
    """Evaluate runs in parallel, each in its own task; runs with a record are skipped."""
    import ray

    for run in runs:
        fetched_state(run.path)
    to_do = [run for run in runs if not run.record.exists()]
    waiting = [_evaluation_task(recipe).remote(portable(run.path)) for run in to_do]
    while waiting:
        ended, waiting = ray.wait(waiting)
        for reference in ended:
            result_of(reference)
        if on_done is not None:
            on_done(len(runs) - len(waiting))


def evaluate_on_cluster(
    run: Path, overrides: dict[str, Any] | None = None, out: Path | None = None, *, verbose: bool = False
) -> EvaluationRecord:
    """Evaluate one run as a task, on any node with the resources that its recipe asks for."""
    start_ray(verbose=verbose)
    recipe = load_recipe(RunFolder(fetched_state(run)).recipe, overrides)
    task = _evaluation_task(recipe).remote(portable(run), overrides, out=out)
    record: EvaluationRecord = result_of(task)
    return record


def _evaluation_task(recipe: Recipe) -> Any:
    import ray

    share = Share.of(recipe.workers)
    return ray.remote(evaluate_run).options(num_cpus=share.cpus, num_gpus=share.gpus)
