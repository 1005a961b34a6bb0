"""Taking in what validation has answered later: the best epoch, its weights, and the log."""

import shutil
from collections.abc import Mapping
from typing import Any

from temper.errors import CheckpointError
from temper.recipe import Recipe
from temper.records import RunFolder, write_atomic
from temper.tracking import Tracker
from temper.training.deferred_validation import discard, read_answer, weights_of
from temper.training.progress import considered
from temper.training.saving import save_state
from temper.training.state import TrainState, Waiting

Answers = Mapping[int, dict[str, float]]
"""Epoch -> ``val/<task>/<metric>``."""


def settle(recipe: Recipe, run: RunFolder, state: TrainState) -> tuple[TrainState, Answers]:
    """The state with every answer that has come taken in, and these answers.

    ``checkpoint/model.safetensors`` is the best epoch's afterwards. The state is for the caller to write;
    until ``close`` is called, all can be done again.

    Raises:
        CheckpointError: weights that were put aside are gone.
    """
    answers: dict[int, dict[str, float]] = {}
    left: list[Waiting] = []
    for waiting in state.waiting:
        answer = read_answer(run, waiting.epoch)
        if answer is None:
            left.append(waiting)
            continue
        answers[waiting.epoch] = answer
        state = state.model_copy(update=_choose(recipe, state, waiting, answer))
    if state.best_epoch in answers:
        _keep(run, state.best_epoch)
    return (state.model_copy(update={"waiting": left}) if answers else state), answers


def close(run: RunFolder, answers: Answers, tracker: Tracker) -> None:
    """Log the answers that the written state has taken in, and clear them away."""
    for epoch, metrics in answers.items():
        tracker.log(metrics, epoch=epoch)
    discard(run, answers)


def finish_validation(recipe: Recipe, run: RunFolder, state: TrainState, tracker: Tracker) -> TrainState:
    """Take in the last answers of a run that is no longer training."""
    state, answers = settle(recipe, run, state)
    if answers:
        save_state(run, state)
        close(run, answers, tracker)
    if not state.waiting:
        shutil.rmtree(run.waiting, ignore_errors=True)
    return state


def _choose(recipe: Recipe, state: TrainState, waiting: Waiting, answer: dict[str, float]) -> dict[str, Any]:
    metrics = waiting.metrics | answer
    update = considered(state, recipe.selection_metric, metrics, waiting.epoch)
    if "best_epoch" in update:
        update["adapter_ranks"] = waiting.adapter_ranks
    return update


def _keep(run: RunFolder, epoch: int) -> None:
    path = weights_of(run, epoch)
    try:
        write_atomic(run.checkpoint / "model.safetensors", path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: the best epoch's weights are gone; remove {run.path} and train again"
        ) from None
