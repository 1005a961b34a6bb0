"""The training loop in this process on one device, or on the workers of Ray Train."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from temper.cluster.async_validation import AsyncValidation, report_epoch, resources, validate_rest
from temper.cluster.datasets import build_train_data
from temper.cluster.preemption import WorkerNotice, loop_that_can_be_asked, until_sigterm
from temper.cluster.resources import wants_gpu
from temper.errors import TemperError, TrainingError
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.run.open_data import OpenData
from temper.storage import RUNS_WITHIN, fetched, fetched_state, local_path, mirrored, portable, publish
from temper.tracking import build_tracker
from temper.training import (
    DeferredValidation,
    DistributedWorker,
    Origin,
    TrainState,
    Validator,
    Worker,
    read_last,
    train,
)

MAX_RESTARTS = 2
"""Without having come further in between."""
RESIZE_INTERVAL_S = 60.0
"""Between two looks for room for more workers, where their number may change."""
START_LIMIT_S = 30.0
"""How long a changed number of workers may take to be placed before Ray Train counts the nodes again: it
learns of a node's death later than its workers die.
"""

OnEpoch = Callable[[Mapping[str, Any]], None]
"""Called after each epoch with its metrics; ``pretrain`` in them tells a pretraining epoch."""


def run_here(
    recipe: Recipe,
    run: RunFolder,
    data: OpenData,
    decoded: dict[str, Any],
    *,
    origin: Origin,
    report: OnEpoch | None,
) -> TrainState:
    """The loop in this process, on one device."""
    use_gpu = recipe.workers.use_gpu
    device = "cuda" if use_gpu is True or (use_gpu == "auto" and torch.cuda.is_available()) else "cpu"
    with until_sigterm(run) as notice:
        return _train(recipe, run, data, decoded, Worker(device, report, notice), origin)


def _train(
    recipe: Recipe,
    run: RunFolder,
    data: OpenData,
    decoded: dict[str, Any],
    worker: Worker,
    origin: Origin,
    validator: Validator | None = None,
) -> TrainState:
    feed = build_train_data(recipe, data, decoded, rank=worker.rank, world_size=worker.world_size)
    former = read_last(run)
    start_epoch = 0 if former is None else former.next_epoch
    tracker = build_tracker(
        recipe.tracking,
        run,
        name=recipe.name,
        config=recipe.resolved(),
        start_epoch=start_epoch,
        is_chief=worker.is_chief,
    )
    try:
        state = train(recipe, run, feed, worker=worker, tracker=tracker, origin=origin, validator=validator)
        tracker.summary(state.best_metrics)
        return state
    finally:
        feed.close()
        tracker.finish()


# --- Ray Train --------------------------------------------------------------------------------


def run_on_workers(
    recipe: Recipe,
    run: RunFolder,
    data: OpenData,
    decoded: dict[str, Any],
    origin: Origin,
    *,
    on_epoch: OnEpoch | None = None,
    callbacks: Sequence[Any] = (),
) -> TrainState:
    """The loop on ``workers.num_workers`` processes of Ray Train, restarted if one of them dies.

    Our own error would only come back, so it ends the run at once (Ray's retries do not tell them apart).
    ``on_epoch`` follows from this process; ``callbacks`` are Ray Train's own, of a trial of a sweep.
    """
    from temper.cluster.follow import follow_epochs

    validation = AsyncValidation(recipe.resolved(), portable(run.path), data, decoded)
    with follow_epochs(run.metrics, on_epoch), until_sigterm(run):
        if not _is_trained(run):
            _fit(recipe, validation, origin, callbacks)
        try:
            return validate_rest(validation, is_shared=bool(callbacks))
        except Exception as problem:
            raise _own_error(problem) or TrainingError(f"validation failed: {problem}") from problem


def _is_trained(run: RunFolder) -> bool:
    """Whether only validation is left."""
    fetched_state(run.path)
    state = read_last(run)
    return state is not None and state.is_finished


def _fit(recipe: Recipe, validation: AsyncValidation, origin: Origin, callbacks: Sequence[Any]) -> None:
    restarts, reached = 0, _position(validation.run)
    while True:
        try:
            _trainer(recipe, validation, origin, callbacks).fit()
            return
        except Exception as problem:
            own = _own_error(problem)
            if own is not None:
                raise own from problem
            before, reached = reached, _position(validation.run)
            restarts = 1 if reached != before else restarts + 1
            if restarts > MAX_RESTARTS:
                raise TrainingError(f"training failed on a worker: {problem}") from problem


def _position(path: Path) -> tuple[int, int] | None:
    """Epochs and steps whose weights are saved."""
    run = RunFolder(fetched_state(path))
    state = read_last(run)
    if state is None:
        return None
    return state.next_epoch, 0 if state.underway is None else state.underway.step


def _trainer(recipe: Recipe, validation: AsyncValidation, origin: Origin, callbacks: Sequence[Any]) -> Any:
    from ray.train import RunConfig, ScalingConfig, ValidationConfig
    from ray.train.torch import TorchTrainer

    workers, use_gpu = recipe.workers, wants_gpu(recipe.workers.use_gpu)
    storage = local_path(validation.run) / ".ray"
    own: list[Any] = []
    if workers.is_elastic:
        from temper.cluster.resizing import SaveBeforeResize

        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(START_LIMIT_S))
        own.append(SaveBeforeResize())
    per_worker = {
        "CPU": float(workers.cpus_per_worker),
        "GPU": workers.gpus_per_worker if use_gpu else 0.0,
    }
    return TorchTrainer(
        _worker_loop,
        train_loop_config={"validation": validation, "origin": origin},
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=use_gpu,
            resources_per_worker=per_worker,
            elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
        ),
        run_config=RunConfig(
            # A new name each time: Ray would take up the old one where Ray had left it.
            name=f"train-{len(list(storage.glob('train-*')))}",
            storage_path=str(storage),
            callbacks=[*callbacks, *own],
        ),
        validation_config=ValidationConfig(validation, ray_remote_kwargs=resources(recipe, bool(callbacks)))
        if recipe.validation.is_asynchronous
        else None,
    )


def _worker_loop(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    import ray.train.torch

    validation: AsyncValidation = config["validation"]
    recipe, device = Recipe.model_validate(validation.recipe), ray.train.torch.get_device()
    later: DeferredValidation | None = None

    def report(metrics: Mapping[str, Any]) -> None:
        report_epoch(dict(metrics), later.take() if later is not None else None)

    with loop_that_can_be_asked():
        worker = DistributedWorker(device, report, WorkerNotice(RunFolder(local_path(validation.run))))
        with _shared_folder(validation.run, worker) as folder:
            run = RunFolder(folder)
            later = DeferredValidation(run) if recipe.validation.is_asynchronous else None
            _train(recipe, run, validation.data, validation.decoded, worker, config["origin"], later)


@contextmanager
def _shared_folder(path: Path, worker: Worker) -> Iterator[Path]:
    """The run folder: the chief writes it, and the others start with the same files."""
    if not worker.is_chief:
        worker.barrier()
        yield fetched(path, without=RUNS_WITHIN)
        return
    with mirrored(path) as folder:
        publish(folder)
        worker.barrier()
        yield folder


def _own_error(problem: BaseException) -> TemperError | None:
    """The worker's own error inside Ray's; ``None`` if a process died."""
    found: BaseException | None = problem
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, TemperError):
            # What ``ray.get`` raises is of our class too, but its text is a traceback.
            cause = getattr(found, "cause", None)
            return cause if isinstance(cause, TemperError) else found
        failures = getattr(found, "worker_failures", None)
        found = (
            next(iter(failures.values())) if failures else (getattr(found, "cause", None) or found.__cause__)
        )
    return None
