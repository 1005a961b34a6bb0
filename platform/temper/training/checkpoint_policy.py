"""When a run is saved within an epoch, agreed between its workers."""

import time

import torch

from temper.recipe import CheckpointSpec
from temper.training.worker import Action, Worker

MEETING_S = 1.0
"""About how often the workers ask each other: a few bytes that each of them waits for."""
MOST_STEPS = 10_000


class CheckpointTrigger:
    """Asks after each step whether to save now; every worker gets the same answer at the same step.

    The chief's clock counts, and the notice that any worker has got.
    """

    def __init__(self, spec: CheckpointSpec, worker: Worker) -> None:
        self._spec, self._worker = spec, worker
        self._saved = self._met = time.monotonic()
        self._num_steps, self._interval = 0, 1

    def after_step(self, step: int) -> Action:
        """``step`` is the number of batches done in this epoch."""
        self._num_steps += 1
        is_counted = self._spec.every_steps is not None and step % self._spec.every_steps == 0
        action = self.sync() if self._num_steps >= self._interval else Action.CONTINUE
        return max(action, Action.SAVE if is_counted else Action.CONTINUE)

    def sync(self) -> Action:
        """Ask now, on every worker."""
        now = time.monotonic()
        own = self._worker.action()
        if self._worker.is_chief and self._is_due(now):
            own = max(own, Action.SAVE)
        pace = round(self._num_steps * MEETING_S / max(now - self._met, 1e-6))
        said = [own >= Action.SAVE, own >= Action.STOP, pace if self._worker.is_chief else 0]
        save, stop, pace = self._worker.sum(torch.tensor(said, dtype=torch.float64)).tolist()
        self._num_steps, self._interval, self._met = 0, max(1, min(MOST_STEPS, int(pace))), now
        return Action.STOP if stop else Action.SAVE if save else Action.CONTINUE

    def saved(self) -> None:
        """Restart the clock."""
        self._saved = time.monotonic()

    def _is_due(self, now: float) -> bool:
        minutes = self._spec.every_minutes
        return minutes is not None and now - self._saved >= 60 * minutes
