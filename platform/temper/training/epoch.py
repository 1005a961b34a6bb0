"""One epoch: every batch in turn, and the means of its losses."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from temper.batches import Batch
from temper.errors import TrainingError
from temper.training.data import paired_batches
from temper.training.losses import Losses
from temper.training.prefetch import prefetched
from temper.training.state import Passes, Underway
from temper.training.step import TrainStep
from temper.training.worker import Worker

CHECK_STEPS = 50
"""Steps between two looks at the loss: each look waits for the device."""


@dataclass
class Tally:
    """The sums over the steps of ``epoch`` so far, on this worker."""

    epoch: int
    num_steps: int = 0
    sums: Losses = field(default_factory=dict)
    passes: Passes = field(default_factory=Passes)

    @classmethod
    def of(cls, epoch: int, begun: Underway | None, worker: Worker) -> "Tally":
        """Nothing, or what was done before an interruption, which the chief then counts as its own."""
        if begun is None:
            return cls(epoch)
        device = worker.device
        sums = {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in begun.losses.items()
        }
        if worker.is_chief:
            return cls(epoch, begun.step, sums, begun.passes)
        return cls(epoch, begun.step, {name: torch.zeros_like(value) for name, value in sums.items()})

    def add(self, losses: Losses, passes: Passes) -> None:
        for name, value in losses.items():
            # In float64, so that it does not matter where a run was interrupted.
            self.sums[name] = self.sums[name] + value if name in self.sums else value.double()
        self.passes += passes
        self.num_steps += 1

    def check(self) -> None:
        """Check that the loss is finite: waits for the device."""
        _check_finite(self.sums["loss"], self.epoch, self.num_steps)

    def underway(self, worker: Worker, seconds: float) -> Underway:
        """The same of all workers together."""
        names, totals = self._totals(worker, 1)
        losses = dict(zip(names, totals, strict=False))
        _check_finite(torch.tensor(losses["loss"]), self.epoch, self.num_steps)
        passes = Passes(forward=round(totals[-2]), backward=round(totals[-1]))
        return Underway(step=self.num_steps, losses=losses, passes=passes, seconds=seconds)

    def result(self, worker: Worker, num_shares: int) -> tuple[dict[str, float], Passes]:
        """Mean losses of the epoch over all shares, and the passes that it took."""
        names, totals = self._totals(worker, self.num_steps)
        metrics = {f"train/{name}": total / num_shares for name, total in zip(names, totals, strict=False)}
        return metrics, Passes(forward=round(totals[-2]), backward=round(totals[-1]))

    def _totals(self, worker: Worker, divisor: int) -> tuple[list[str], list[float]]:
        names = sorted(self.sums)
        values = [float(self.sums[name]) / divisor for name in names]
        whole = torch.tensor([*values, self.passes.forward, self.passes.backward], dtype=torch.float64)
        return names, worker.sum(whole).tolist()


AfterStep = Callable[[Tally, dict[str, Batch]], None]


def run_epoch(
    step: TrainStep, epoch: int, begun: Underway | None = None, after_step: AfterStep | None = None
) -> tuple[dict[str, float], Passes]:
    """Mean training losses of one epoch over all shares, and the passes that it took.

    ``begun`` is what was done of it before. ``after_step`` is called after each step with what it used.

    Raises:
        TrainingError: the loss stopped being finite.
    """
    tally = Tally.of(epoch, begun, step.worker)
    uses_source = step.recipe.objective.uses_source
    feed = paired_batches(step.feed, epoch, uses_source, tally.num_steps)
    for batches in prefetched(feed, step.worker.device):
        now = step.plan.moment(epoch, tally.num_steps, step.feed.target.num_batches)
        tally.add(*step(batches, now))
        if tally.num_steps % CHECK_STEPS == 0:
            tally.check()
        if after_step is not None:
            after_step(tally, batches)
    tally.check()
    return tally.result(step.worker, step.feed.num_shares)


def _check_finite(total: Tensor, epoch: int, num_steps: int) -> None:
    if not torch.isfinite(total):
        raise TrainingError(
            f"the loss became {float(total)} in epoch {epoch + 1}, within {num_steps} steps; "
            "lower optim.lr, set optim.max_grad_norm, or start from weights that fit"
        )
