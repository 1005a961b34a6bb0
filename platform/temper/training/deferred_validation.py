"""Validation that training does not wait for: an epoch's weights are set aside, and its metrics come later.

The two sides communicate only through files in ``waiting/``, so neither loses anything when the other
dies: ``epoch-N.safetensors`` (weights to validate), ``epoch-N.json`` (the answer), ``epoch-N.failed``.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from temper.data import Images
from temper.errors import CheckpointError
from temper.host import use_cpu
from temper.models import TaskModel, build_model, load_model_state, save_model
from temper.recipe import Recipe
from temper.records import RunFolder, write_atomic
from temper.safe_load import read_json
from temper.tracking import Tracker
from temper.training.averaging import build_average
from temper.training.compute import apply_compute
from temper.training.data import TrainData
from temper.training.progress import considered
from temper.training.saving import save_state
from temper.training.state import TrainState, Waiting
from temper.training.validation import add_counts, count_correct, metrics_of, validate_epoch
from temper.training.worker import Substitute, Worker

POLL_S = 0.2
GRACE_S = 60.0


class Validator(Protocol):
    """Validates an epoch, now or later."""

    def validate(
        self, recipe: Recipe, model: TaskModel, feed: TrainData, worker: Worker, epoch: int
    ) -> dict[str, float] | None:
        """``val/<task>/<metric>`` of ``model``; ``None`` if they come later."""

    def wait(self, epochs: Iterable[int], limit_s: float) -> None:
        """Wait for the answers on ``epochs``, if any are to come, but not much longer than ``limit_s``."""


class ImmediateValidation:
    """Validates in place, on all ranks."""

    def validate(
        self, recipe: Recipe, model: TaskModel, feed: TrainData, worker: Worker, epoch: int
    ) -> dict[str, float] | None:
        return validate_epoch(recipe, model, feed, worker)

    def wait(self, epochs: Iterable[int], limit_s: float) -> None: ...


class DeferredValidation:
    """Sets an epoch's weights aside for another process, which calls ``validate_waiting``."""

    def __init__(self, run: RunFolder, grace_s: float = GRACE_S) -> None:
        self._run, self._grace_s = run, grace_s
        self._put_aside: int | None = None

    def validate(
        self, recipe: Recipe, model: TaskModel, feed: TrainData, worker: Worker, epoch: int
    ) -> dict[str, float] | None:
        if worker.is_chief:
            discard(self._run, [epoch])
            save_model(model, weights_of(self._run, epoch))
            self._put_aside = epoch
        return None

    def take(self) -> int | None:
        """The epoch that was set aside since the last call."""
        epoch, self._put_aside = self._put_aside, None
        return epoch

    def wait(self, epochs: Iterable[int], limit_s: float) -> None:
        until = time.monotonic() + limit_s + self._grace_s
        for epoch in epochs:
            answered = (_answer_of(self._run, epoch), _failure_of(self._run, epoch))
            while not any(path.exists() for path in answered) and time.monotonic() < until:
                time.sleep(POLL_S)


def weights_of(run: RunFolder, epoch: int) -> Path:
    """The weights of an epoch as it is validated."""
    return run.waiting / f"epoch-{epoch:05d}.safetensors"


def _answer_of(run: RunFolder, epoch: int) -> Path:
    return run.waiting / f"epoch-{epoch:05d}.json"


def _failure_of(run: RunFolder, epoch: int) -> Path:
    return run.waiting / f"epoch-{epoch:05d}.failed"


def read_answer(run: RunFolder, epoch: int) -> dict[str, float] | None:
    """``val/<task>/<metric>`` of an epoch, once it has been validated.

    Raises:
        CheckpointError: the answer is damaged.
    """
    path = _answer_of(run, epoch)
    try:
        answer: dict[str, float] = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{path}: damaged ({problem}); remove it and run the same command again"
        ) from None
    return answer


def discard(run: RunFolder, epochs: Iterable[int]) -> None:
    """Remove the files of ``epochs`` in ``waiting/``."""
    for epoch in epochs:
        for path in (weights_of(run, epoch), _answer_of(run, epoch), _failure_of(run, epoch)):
            path.unlink(missing_ok=True)


def validate_waiting(
    recipe: Recipe,
    run: RunFolder,
    state: TrainState,
    val: dict[str, Images],
    device: torch.device | str,
    up_to: int | None = None,
) -> None:
    """Validate every epoch that ``state`` waits for, including those from before an interruption.

    The images are cut as for as many ranks as there are shares, so the answers are the same to the digit.
    ``up_to`` is the last epoch to look at.

    Raises:
        CheckpointError: the weights are missing or damaged.
    """
    waiting = [one.epoch for one in state.waiting if up_to is None or one.epoch <= up_to]
    waiting = [epoch for epoch in waiting if not _answer_of(run, epoch).exists()]
    if not waiting:
        return
    use_cpu(recipe.workers.cpus_per_worker)
    model = _kept_model(recipe, state, device)
    for epoch in waiting:
        try:
            load_model_state(model, weights_of(run, epoch))
            metrics = _validate(recipe, model, val, state.classes, device)
        except Exception as problem:
            write_atomic(_failure_of(run, epoch), f"{type(problem).__name__}: {problem}\n")
            raise
        write_atomic(_answer_of(run, epoch), json.dumps(metrics))


def _kept_model(recipe: Recipe, state: TrainState, device: torch.device | str) -> TaskModel:
    """What the loop validates, made in the loop's own order: an average is copied before it is changed."""
    spec = recipe.model.model_copy(update={"weights": None})
    model = build_model(spec, state.classes, image_size=recipe.data.image_size, seed=recipe.seed).to(device)
    average = build_average(model, recipe.optim.ema_decay_of(recipe.epochs))
    if state.compute is not None:
        # Compiling takes longer than what it would save here.
        apply_compute(state.compute.model_copy(update={"compile": False}), model)
    return average.model


def _validate(
    recipe: Recipe,
    model: TaskModel,
    val: dict[str, Images],
    classes: dict[str, list[str]],
    device: torch.device | str,
) -> dict[str, float]:
    num_shares = recipe.workers.num_shares
    ranks = [Substitute(device, share, num_shares) for share in range(num_shares)]
    return metrics_of(add_counts(count_correct(recipe, model, val, classes, rank) for rank in ranks))


Answers = Mapping[int, dict[str, float]]
"""Epoch -> ``val/<task>/<metric>``."""


def settle(recipe: Recipe, run: RunFolder, state: TrainState) -> tuple[TrainState, Answers]:
    """The state with all metrics that have arrived, and these metrics.

    ``checkpoint/model.safetensors`` is the best epoch's afterwards. The state is for the caller to write;
    until ``close`` is called, all can be done again.

    Raises:
        CheckpointError: weights that were set aside are gone.
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
        state = state.model_copy(update={"best_sha256": _keep(run, state.best_epoch)})
    return (state.model_copy(update={"waiting": left}) if answers else state), answers


def close(run: RunFolder, answers: Answers, tracker: Tracker) -> None:
    """Log the metrics that the written state includes, and remove their files."""
    for epoch, metrics in answers.items():
        tracker.log(metrics, epoch=epoch)
    discard(run, answers)


def finish_validation(recipe: Recipe, run: RunFolder, state: TrainState, tracker: Tracker) -> TrainState:
    """Include the last metrics of a run that is no longer training."""
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


def _keep(run: RunFolder, epoch: int) -> str:
    path = weights_of(run, epoch)
    try:
        content = path.read_bytes()
        write_atomic(run.checkpoint / "model.safetensors", content)
        return hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: the best epoch's weights are missing; remove {run.path} and train again"
        ) from None
