"""The progress of a run, epoch by epoch."""

from typing import Any

from temper.models import TaskModel
from temper.recipe import Recipe
from temper.training.compute import apply_compute, choose_compute
from temper.training.data import TrainData
from temper.training.guard import Collapse, guard_of
from temper.training.plan import PhasePlan
from temper.training.state import Passes, TrainState, Waiting, digest_of
from temper.training.worker import Worker

AT_OPTIMUM = "the head is at its optimum, which further epochs would not change"


def fresh_state(recipe: Recipe, feed: TrainData, weights: str | None, worker: Worker) -> TrainState:
    """The state of a run that has not begun."""
    return TrainState(
        recipe_hash=recipe.hash,
        classes=feed.classes,
        fingerprints=feed.fingerprints,
        depth=feed.depth,
        start_weights=weights,
        num_epochs=recipe.epochs,
        batch_size_is_of="run",
        device=worker.device.type,
    )


def with_compute(state: TrainState, recipe: Recipe, model: TaskModel, worker: Worker) -> TrainState:
    """Let ``model`` compute as the run has done, or else as is chosen now."""
    compute = state.compute or choose_compute(recipe, model, worker)
    apply_compute(compute, model)
    return state.model_copy(update={"compute": compute})


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

    A collapsed epoch is lost: the run ends before it, or continues after it with the weights from before
    it. A phase that is solved is over with its first epoch.
    """
    update: dict[str, Any] = {
        "num_trained_params": max(state.num_trained_params, sum(plan.num_params.values())),
        "train_s": state.train_s + seconds,
        "passes": state.passes + passes,
        "underway": None,
    }
    if collapse is not None and collapse.ends_run:
        return state.model_copy(update={**update, "stopped": collapse.reason})
    next_epoch = plan.phase.end_epoch if plan.is_solved else epoch + 1
    update |= {"next_epoch": next_epoch, "trainable": digest_of(plan.names)}
    if plan.is_solved and epoch + 1 < next_epoch == recipe.epochs:
        update["stopped"] = AT_OPTIMUM
    if collapse is not None:
        return state.model_copy(update=update)
    guard = guard_of(recipe.objective.adversary)
    if guard is not None and "train/guarded_acc" in metrics:
        update["guarded_acc"] = [*state.guarded_acc, metrics["train/guarded_acc"]][-guard.window :]
    metric, patience = recipe.selection_metric, recipe.validation.patience
    update |= considered(state, metric, metrics, epoch)
    if plan.is_solved:  # patience is with what is trained by steps
        update |= {"since_best": state.since_best, "best_of_epochs": state.best_of_epochs}
    if patience is not None and update.get("since_best", 0) >= patience and epoch + 1 < recipe.epochs:
        update["stopped"] = f"no better {metric} in {patience} validations"
    return state.model_copy(update=update)


def considered(state: TrainState, metric: str, metrics: dict[str, float], epoch: int) -> dict[str, Any]:
    """What changes in ``state`` when ``epoch`` is a candidate for the best one."""
    update: dict[str, Any] = {}
    if _is_better(state, metric, metrics, epoch):
        update = {"best_epoch": epoch, "best_metrics": metrics}
    if metric in metrics:
        before = state.best_of_epochs
        if before is None and state.best_epoch is not None:  # of a version that did not note it
            before = state.best_metrics.get(metric)
        is_further = before is None or metrics[metric] > before
        update["since_best"] = 0 if is_further else state.since_best + 1
        update["best_of_epochs"] = metrics[metric] if is_further else before
    return update


def _is_better(state: TrainState, metric: str, metrics: dict[str, float], epoch: int) -> bool:
    """Whether ``epoch`` takes the place of the best so far; of equal ones, the earliest is the best.

    An epoch without ``metric`` has it only where there is nothing before, until one is validated.
    """
    if state.best_epoch is None and state.probe_metrics is None:
        return True
    value, best = metrics.get(metric, -2.0), state.best_metrics.get(metric, -1.0)
    return value > best or (value == best and state.best_epoch is not None and epoch < state.best_epoch)


def noted(
    state: TrainState, epoch: int, metrics: dict[str, float], ranks: dict[str, int], is_waiting: bool
) -> TrainState:
    """The state with what is kept of an epoch that is the best, or may turn out to be; ``ranks`` are those of
    its adapter.
    """
    update: dict[str, Any] = {}
    if state.best_epoch == epoch:
        update["adapter_ranks"] = ranks
    if is_waiting:
        update["waiting"] = [*state.waiting, Waiting(epoch=epoch, metrics=metrics, adapter_ranks=ranks)]
    return state.model_copy(update=update)


def reported(state: TrainState, metrics: dict[str, float], epoch: int) -> dict[str, float]:
    """One flat row for a scheduler: this epoch's metrics, the best so far, and the cost."""
    best = {f"best/{name}": value for name, value in state.best_metrics.items() if name.startswith("val/")}
    cost = {
        "cost/train_s": state.train_s,
        "cost/num_forward": float(state.passes.forward),
        "cost/num_backward": float(state.passes.backward),
    }
    return {"epoch": float(epoch + 1), "finished": float(state.is_finished), **metrics, **best, **cost}
