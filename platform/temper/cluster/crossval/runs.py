"""The runs of a cross-validation: tasks on Ray, side by side, each a run folder with its record."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from temper.cluster.evaluate import evaluate_run
from temper.cluster.evaluation_tasks import evaluate_on_cluster
from temper.cluster.launch import launch, start_weights
from temper.cluster.resources import Share, max_concurrent
from temper.cluster.runtime import quiet_ray
from temper.cluster.workers import MAX_RESTARTS
from temper.credentials import mask
from temper.recipe import Recipe
from temper.records import RunFolder, write_atomic
from temper.storage import fetched_state, local_path, mirrored
from temper.training import read_last


def side_by_side(
    task: Callable[..., str | None], jobs: Mapping[Any, tuple[Any, ...]], recipe: Recipe
) -> Iterator[tuple[Any, str | None]]:
    """Call ``task`` with the arguments of every job, on the cluster; (key, error or ``None``) as each ends.

    A task trains in its own process with the resources of the recipe's worker. If the recipe has Ray Train
    workers, the task only waits for them, and as many run at once as fit.

    Raises:
        SearchSpaceError: not even one fits on the cluster.
    """
    import ray

    workers = recipe.workers
    trains_itself = workers.num_workers == 0
    share, at_once = Share.of(workers), max_concurrent(workers)
    remote = ray.remote(task).options(
        num_cpus=share.cpus if trains_itself else 0,
        num_gpus=share.gpus if trains_itself else 0,
        max_retries=MAX_RESTARTS,
    )
    waiting = list(jobs)
    running: dict[Any, Any] = {}
    while waiting or running:
        # Ray itself keeps back what asks for CPUs that are taken.
        while waiting and (trains_itself or len(running) < at_once):
            key = waiting.pop(0)
            running[remote.remote(*jobs[key])] = key
        ended, _ = ray.wait(list(running))
        for reference in ended:
            yield running.pop(reference), _outcome(reference)


def _outcome(reference: Any) -> str | None:
    import ray

    try:
        error: str | None = ray.get(reference)
    except ray.exceptions.RayError as problem:
        return f"its process died ({type(problem).__name__})"
    return error


def pretrain_start(document: dict[str, Any], folder: Path) -> str | None:
    """A task: train the start of a recipe into ``folder``. Its error, or ``None``."""
    quiet_ray()
    return _attempt(lambda: start_weights(Recipe.model_validate(document), folder))


def train_and_evaluate(document: dict[str, Any], folder: Path, pretrain: Path | None) -> str | None:
    """A task: train and evaluate what is left of one run. Its error, or ``None``."""
    quiet_ray()
    RunFolder(local_path(folder)).error.unlink(missing_ok=True)
    error = _attempt(lambda: _finish(Recipe.model_validate(document), folder, pretrain))
    if error is not None:
        _attempt(lambda: _keep_error(folder, error))
    return error


def _keep_error(folder: Path, error: str) -> None:
    with mirrored(folder) as place:
        write_atomic(RunFolder(place).error, f"{error}\n")


def _attempt(work: Callable[[], object]) -> str | None:
    try:
        work()
    except Exception as problem:
        # One run that fails must not end the others; the record names it.
        return mask(f"{type(problem).__name__}: {problem}")
    return None


def _finish(recipe: Recipe, folder: Path, pretrain: Path | None) -> None:
    run = RunFolder(fetched_state(folder))
    if run.record.exists():  # of a task that died after it had written it
        return
    state = read_last(run)
    if state is None or not state.is_settled:
        launch(recipe, folder, pretrain=pretrain)
    if recipe.workers.num_workers == 0:
        evaluate_run(folder)
    else:
        evaluate_on_cluster(folder)
