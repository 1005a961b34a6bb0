"""One run, from its recipe to a trained checkpoint: in this process, or on Ray Train's workers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from temper.cluster.feeds import OpenData, build_feed, decode_splits, open_data
from temper.cluster.runtime import start_ray, wants_gpu
from temper.errors import CheckpointError, TemperError, TrainingError
from temper.models import build_model
from temper.recipe import Recipe, pretrain_recipe
from temper.records import RunFolder, write_atomic
from temper.spec import dump_yaml
from temper.tracking import build_tracker
from temper.training import DistributedWorker, TrainState, Worker, read_state, train

MAX_RESTARTS = 2

OnEpoch = Callable[[Mapping[str, Any]], None]
"""Called after each epoch with its metrics; ``pretrain`` in them tells a pretraining epoch."""


def launch(
    recipe: Recipe,
    out: Path,
    *,
    on_epoch: OnEpoch | None = None,
    verbose: bool = False,
) -> TrainState:
    """Train ``recipe`` into the run folder ``out``; an interrupted run goes on where it was.

    Raises:
        TemperError: shards, weights or the folder are not usable, or the run cannot go on.
    """
    run = RunFolder(out)
    claim(run, recipe)
    data = open_data(recipe)
    check_model(recipe, data)
    start = start_weights(recipe, run.pretrain, on_epoch=on_epoch, verbose=verbose)
    write_atomic(run.recipe, dump_yaml(recipe.resolved()))
    if recipe.workers.num_workers == 0:
        decoded = decode_splits(recipe, data, with_ray=False)
        return run_here(recipe, run, data, decoded, start=start, report=on_epoch)
    start_ray(verbose=verbose)
    decoded = decode_splits(recipe, data, with_ray=True)
    return run_on_workers(recipe, run, data, decoded, start, on_epoch=on_epoch)


def claim(run: RunFolder, recipe: Recipe) -> None:
    """See that ``run`` is free for ``recipe``, or holds an unfinished run of the same one.

    Raises:
        CheckpointError: it holds something else, or this run is finished already.
    """
    if not (run.last / "state.json").exists():
        if run.record.exists() or run.checkpoint.exists():
            raise CheckpointError(f"{run.path}: holds another run; choose another --out, or remove it")
        return
    state = read_state(run.last)
    if state.recipe_hash != recipe.hash:
        raise CheckpointError(
            f"{run.path}: holds a run of another recipe; choose another --out, or remove it"
        )
    if state.is_finished:
        raise CheckpointError(
            f"{run.path}: this run is finished; `temper evaluate {run.path}` evaluates it, "
            "another --out repeats it"
        )


def check_model(recipe: Recipe, data: OpenData) -> None:
    """Build the model and its phases once here, before workers are asked for.

    Raises:
        ModelError: weights that are missing, damaged, or of another backbone.
        RecipeError: a schedule that the backbone's groups do not allow.
    """
    model = build_model(recipe.model, data.classes, image_size=recipe.data.image_size, seed=recipe.seed)
    recipe.schedule.phases(recipe.epochs, model.group_names)


def start_weights(
    recipe: Recipe, folder: Path, *, on_epoch: OnEpoch | None = None, verbose: bool = False
) -> str | None:
    """What the run starts from: a start trained on the source task into ``folder``, where the recipe asks
    for it, or the recipe's own weights, with a path that holds on workers elsewhere too.
    """
    if recipe.pretrain is None:
        weights = recipe.model.weights
        return str(Path(weights).resolve()) if weights and Path(weights).exists() else weights
    first = pretrain_recipe(recipe)
    last = RunFolder(folder).last
    if (
        (last / "state.json").exists()
        and read_state(last).recipe_hash == first.hash
        and read_state(last).is_finished
    ):
        return str(folder.resolve())

    def report(metrics: Mapping[str, Any]) -> None:
        if on_epoch is not None:
            on_epoch({**metrics, "pretrain": 1.0})

    launch(first, folder, on_epoch=report, verbose=verbose)
    return str(folder.resolve())


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
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from temper.cluster.follow import follow_epochs

    use_gpu = wants_gpu(recipe.workers.use_gpu)
    resources = {"CPU": float(recipe.workers.cpus_per_worker), "GPU": 1.0 if use_gpu else 0.0}
    config = {
        "recipe": recipe.resolved(),
        "run": str(run.path.resolve()),
        "data": data,
        "decoded": decoded,
        "start": start,
    }
    scaling = ScalingConfig(
        num_workers=recipe.workers.num_workers, use_gpu=use_gpu, resources_per_worker=resources
    )
    with follow_epochs(run.metrics, on_epoch):
        for attempt in range(1 + MAX_RESTARTS):
            setting = RunConfig(
                name=f"train-{attempt}",
                storage_path=str((run.path / ".ray").resolve()),
                callbacks=list(callbacks),
            )
            try:
                trainer = TorchTrainer(
                    _worker_loop, train_loop_config=config, scaling_config=scaling, run_config=setting
                )
                trainer.fit()
                break
            except Exception as problem:
                own = _own_error(problem)
                if own is not None:
                    raise own from problem
                if attempt == MAX_RESTARTS:
                    raise TrainingError(f"training failed on a worker: {problem}") from problem
    return read_state(run.last)


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
