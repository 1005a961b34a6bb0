"""Where the loop runs: in this process on one device, or on the workers of Ray Train."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from temper.cluster.feeds import OpenData, build_feed
from temper.cluster.runtime import wants_gpu
from temper.errors import TemperError, TrainingError
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.tracking import build_tracker
from temper.training import DistributedWorker, TrainState, Worker, read_state, train

MAX_RESTARTS = 2

OnEpoch = Callable[[Mapping[str, Any]], None]
"""Called after each epoch with its metrics; ``pretrain`` in them tells a pretraining epoch."""


def run_here(
    recipe: Recipe,
    run: RunFolder,
    data: OpenData,
    decoded: dict[str, Any],
    *,
    start: str | None,
    report: OnEpoch | None,
) -> TrainState:
    """The loop in this very process, on one device."""
    use_gpu = recipe.workers.use_gpu
    device = "cuda" if use_gpu is True or (use_gpu == "auto" and torch.cuda.is_available()) else "cpu"
    return _train(recipe, run, data, decoded, Worker(device, report), start)


def _train(
    recipe: Recipe,
    run: RunFolder,
    data: OpenData,
    decoded: dict[str, Any],
    worker: Worker,
    start: str | None,
) -> TrainState:
    feed = build_feed(recipe, data, decoded, rank=worker.rank, world_size=worker.world_size)
    start_epoch = read_state(run.last).next_epoch if (run.last / "state.json").exists() else 0
    tracker = build_tracker(
        recipe.tracking,
        run,
        name=recipe.name,
        config=recipe.resolved(),
        start_epoch=start_epoch,
        is_chief=worker.is_chief,
    )
    try:
        state = train(recipe, run, feed, worker=worker, tracker=tracker, start_weights=start)
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
    start: str | None,
    *,
    on_epoch: OnEpoch | None = None,
    callbacks: Sequence[Any] = (),
) -> TrainState:
    """The loop on ``workers.num_workers`` processes of Ray Train, begun again where one of them dies.

    An error of ours would only come back, so it ends the run at once (Ray's own retries know no difference).
    ``on_epoch`` follows from this process; ``callbacks`` are Ray Train's own.
    """
    from temper.cluster.follow import follow_epochs

    config = {
        "recipe": recipe.resolved(),
        "run": str(run.path.resolve()),
        "data": data,
        "decoded": decoded,
        "start": start,
    }
    with follow_epochs(run.metrics, on_epoch):
        for attempt in range(1 + MAX_RESTARTS):
            try:
                _trainer(recipe, (run.path / ".ray").resolve(), config, callbacks).fit()
                break
            except Exception as problem:
                own = _own_error(problem)
                if own is not None:
                    raise own from problem
                if attempt == MAX_RESTARTS:
                    raise TrainingError(f"training failed on a worker: {problem}") from problem
    return read_state(run.last)


def _trainer(recipe: Recipe, storage: Path, config: dict[str, Any], callbacks: Sequence[Any]) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    use_gpu = wants_gpu(recipe.workers.use_gpu)
    resources = {"CPU": float(recipe.workers.cpus_per_worker), "GPU": 1.0 if use_gpu else 0.0}
    return TorchTrainer(
        _worker_loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=recipe.workers.num_workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            # A new name each time: Ray would take up the old one where Ray had left it.
            name=f"train-{len(list(storage.glob('train-*')))}",
            storage_path=str(storage),
            callbacks=list(callbacks),
        ),
    )


def _worker_loop(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    import ray.train
    import ray.train.torch

    recipe = Recipe.model_validate(config["recipe"])
    device = ray.train.torch.get_device()

    def report(metrics: Mapping[str, Any]) -> None:
        ray.train.report(dict(metrics))

    _train(
        recipe,
        RunFolder(Path(config["run"])),
        config["data"],
        config["decoded"],
        DistributedWorker(device, report),
        config["start"],
    )


def _own_error(problem: BaseException) -> TemperError | None:
    """The worker's own error out of the layers that Ray has put around it; ``None`` if a process died."""
    found: BaseException | None = problem
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, TemperError):
            return found
        failures = getattr(found, "worker_failures", None)
        found = (
            next(iter(failures.values())) if failures else (getattr(found, "cause", None) or found.__cause__)
        )
    return None
