"""How far a run is, epoch after epoch."""

from typing import Any

from temper.recipe import Recipe
from temper.training.feed import Feed
from temper.training.guard import Collapse, guard_of
from temper.training.plan import PhasePlan
from temper.training.state import Passes, TrainState, digest_of
from temper.training.worker import Worker


def fresh_state(recipe: Recipe, feed: Feed, weights: str | None, worker: Worker) -> TrainState:
    """The state of a run that has not begun."""
    return TrainState(
        recipe_hash=recipe.hash,
        classes=feed.classes,
        fingerprints=feed.fingerprints,
        start_weights=weights,
        num_epochs=recipe.epochs,
        device=worker.device.type,
    )


def advance(
    recipe: Recipe,
    state: TrainState,
    plan: PhasePlan,
    epoch: int,
    metrics: dict[str, float],
    passes: Passes,
    seconds: float,
    collapse: Collapse | None,
) -> TrainState:
    """The state after ``epoch``; the best epoch is the first with the highest selection metric.

    A collapsed epoch is lost: the run ends before it, or goes on after it with the weights from before it.
    """
    update: dict[str, Any] = {
        "num_trained_params": max(state.num_trained_params, sum(plan.num_params.values())),
        "train_s": state.train_s + seconds,
        "passes": state.passes + passes,
        "underway": None,
    }
    if collapse is not None and collapse.ends_run:
        return state.model_copy(update={**update, "stopped": collapse.reason})
    update |= {"next_epoch": epoch + 1, "trainable": digest_of(plan.names)}
    if collapse is not None:
        return state.model_copy(update=update)
    guard = guard_of(recipe.objective.adversary)
    if guard is not None and "train/guarded_acc" in metrics:
        update["guarded_acc"] = [*state.guarded_acc, metrics["train/guarded_acc"]][-guard.window :]
    metric = recipe.selection_metric
    if is_better(state, metric, metrics, epoch):
        update |= {"best_epoch": epoch, "best_metrics": metrics, "since_best": 0}
    elif metric in metrics:
        update["since_best"] = state.since_best + 1
        patience = recipe.validation.patience
        if patience is not None and update["since_best"] >= patience and epoch + 1 < recipe.epochs:
            update["stopped"] = f"no better {metric} in {patience} validations"
    return state.model_copy(update=update)


def is_better(state: TrainState, metric: str, metrics: dict[str, float], epoch: int) -> bool:
    """Whether ``epoch`` takes the place of the best so far; of equal ones, the earliest is the best.

    An epoch without ``metric`` has it only where there is none before, until one is validated.
    """
    if state.best_epoch is None:
        return True
    value, best = metrics.get(metric, -2.0), state.best_metrics.get(metric, -1.0)
    return value > best or (value == best and epoch < state.best_epoch)


def reported(state: TrainState, metrics: dict[str, float], epoch: int) -> dict[str, float]:
    """One flat row for a scheduler: this epoch's metrics, the best so far, and the cost."""
    best = {f"best/{name}": value for name, value in state.best_metrics.items() if name.startswith("val/")}
    cost = {
        "cost/train_s": state.train_s,
        "cost/num_forward": float(state.passes.forward),
        "cost/num_backward": float(state.passes.backward),
    }
    return {"epoch": float(epoch + 1), "finished": float(state.is_finished), **metrics, **best, **cost}
