"""The story of a run: transfer a model to the target task, phase by phase, under attack."""

import time

import torch
from torch import Tensor

from temper.errors import TrainingError
from temper.models import TaskModel, build_model, set_trainable
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.schedules import Phase
from temper.seeds import derive_seed
from temper.tracking import Tracker
from temper.training.feed import Feed, paired_batches
from temper.training.state import Passes, TrainState, restore, restore_optimizer, save_checkpoint
from temper.training.step import TrainStep
from temper.training.validation import validate_epoch
from temper.training.worker import Worker

CHECK_STEPS = 50
"""Steps between two looks at the loss: each look waits for the device."""


def train(
    recipe: Recipe,
    run: RunFolder,
    feed: Feed,
    *,
    worker: Worker,
    tracker: Tracker,
    start_weights: str | None = None,
) -> TrainState:
    """Train ``recipe`` on ``feed`` into ``run``; an interrupted run goes on where it was.

    ``start_weights`` replaces the recipe's ``model.weights`` (the pretrained start of this very recipe).

    Raises:
        TrainingError: the loss stopped being finite.
        CheckpointError: ``run`` holds another run.
    """
    torch.set_num_threads(recipe.workers.cpus_per_worker)
    weights = start_weights or recipe.model.weights
    model = build_model(
        recipe.model.model_copy(update={"weights": weights}),
        feed.classes,
        image_size=recipe.data.image_size,
        seed=recipe.seed,
    ).to(worker.device)
    state = restore(run, _fresh_state(recipe, feed, weights, worker), model)
    for phase in recipe.schedule.phases(recipe.epochs, model.group_names):
        if phase.end_epoch > state.next_epoch:
            state = _train_phase(recipe, run, feed, phase, model, state, worker, tracker)
    return state


def _train_phase(
    recipe: Recipe,
    run: RunFolder,
    feed: Feed,
    phase: Phase,
    model: TaskModel,
    state: TrainState,
    worker: Worker,
    tracker: Tracker,
) -> TrainState:
    """The epochs of ``phase`` that are still to come: one trainable set, one optimizer, one DDP wrapper."""
    tasks = ("target", "source") if recipe.objective.uses_source else ("target",)
    trainable = set_trainable(model, phase.trainable, tasks=tasks)
    optimizer = recipe.optim.build(trainable)
    if state.next_epoch > phase.start_epoch:
        restore_optimizer(run, state, optimizer)
    step = TrainStep(recipe, feed, phase, model, worker.wrap(model), optimizer, worker)
    num_trained = max(state.num_trained_params, sum(parameter.numel() for parameter in trainable))

    for epoch in range(max(phase.start_epoch, state.next_epoch), phase.end_epoch):
        started = time.perf_counter()
        torch.manual_seed(derive_seed(recipe.seed, "epoch", epoch, worker.rank))
        metrics, passes = _train_epoch(step, epoch)
        if (epoch + 1) % recipe.validation.every_epochs == 0 or epoch + 1 == recipe.epochs:
            metrics |= validate_epoch(recipe, model, feed, worker)
        previous, state = state, _advance(recipe, state, epoch, metrics, passes, num_trained, started)
        if worker.is_chief:
            save_checkpoint(run, state, model, optimizer, previous)
            tracker.log(metrics | {"cost/train_s": state.train_s}, epoch=epoch)
        worker.barrier()
        worker.report(_reported(state, metrics, epoch))
    return state


def _train_epoch(step: TrainStep, epoch: int) -> tuple[dict[str, float], Passes]:
    """Mean training losses of one epoch over all ranks, and the passes that it took."""
    sums: dict[str, Tensor] = {}
    passes = Passes()
    num_steps = 0
    for batches in paired_batches(step.feed, epoch, step.recipe.objective.uses_source):
        progress = (epoch + num_steps / step.feed.target.num_batches) / step.recipe.epochs
        losses, step_passes = step(batches, epoch, num_steps, progress)
        for name, value in losses.items():
            sums[name] = sums[name] + value if name in sums else value
        passes += step_passes
        num_steps += 1
        if num_steps % CHECK_STEPS == 0:
            _check_finite(sums["loss"], epoch, num_steps)
    _check_finite(sums["loss"], epoch, num_steps)
    names = sorted(sums)
    values = [float(sums[name]) / num_steps for name in names] + [passes.forward, passes.backward]
    totals = step.worker.sum(torch.tensor(values, dtype=torch.float64)).tolist()
    metrics = {
        f"train/{name}": total / step.worker.world_size for name, total in zip(names, totals, strict=False)
    }
    return metrics, Passes(forward=round(totals[-2]), backward=round(totals[-1]))


def _check_finite(total: Tensor, epoch: int, num_steps: int) -> None:
    if not torch.isfinite(total):
        raise TrainingError(
            f"the loss became {float(total)} in epoch {epoch}, within {num_steps} steps; "
            "lower optim.lr, set optim.max_grad_norm, or start from weights that fit"
        )


def _fresh_state(recipe: Recipe, feed: Feed, weights: str | None, worker: Worker) -> TrainState:
    return TrainState(
        recipe_hash=recipe.hash,
        classes=feed.classes,
        fingerprints=feed.fingerprints,
        start_weights=weights,
        num_epochs=recipe.epochs,
        device=worker.device.type,
    )


def _advance(
    recipe: Recipe,
    state: TrainState,
    epoch: int,
    metrics: dict[str, float],
    passes: Passes,
    num_trained: int,
    started: float,
) -> TrainState:
    """The state after ``epoch``; the best epoch is the first with the highest selection metric."""
    metric = recipe.selection_metric
    best_so_far = state.best_metrics.get(metric, -1.0)
    is_best = metrics.get(metric, -2.0) > best_so_far or state.best_epoch is None
    return state.model_copy(
        update={
            "next_epoch": epoch + 1,
            "best_epoch": epoch if is_best else state.best_epoch,
            "best_metrics": metrics if is_best else state.best_metrics,
            "num_trained_params": num_trained,
            "train_s": state.train_s + time.perf_counter() - started,
            "passes": state.passes + passes,
        }
    )


def _reported(state: TrainState, metrics: dict[str, float], epoch: int) -> dict[str, float]:
    """One flat row for a scheduler: this epoch's metrics, the best so far, and the cost."""
    best = {f"best/{name}": value for name, value in state.best_metrics.items() if name.startswith("val/")}
    cost = {
        "cost/train_s": state.train_s,
        "cost/num_forward": float(state.passes.forward),
        "cost/num_backward": float(state.passes.backward),
    }
    return {"epoch": float(epoch + 1), **metrics, **best, **cost}
