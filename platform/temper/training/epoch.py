"""One epoch: every batch in turn, and the means of its losses."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from temper.batches import Batch
from temper.errors import DivergenceError
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
    recent: list[Tensor] = field(default_factory=list)
    """The losses since the last look, as scalars on the device."""
    lr: float | None = None
    """The full learning rate, which an error names."""

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
        self.recent.append(losses["loss"])
        self.passes += passes
        self.num_steps += 1

    def check(self) -> None:
        """Check that the loss of each step since the last look is finite: waits for the device.

        Raises:
            DivergenceError: it is not; the message names the step.
        """
        recent, self.recent = self.recent, []
        values = torch.stack(recent).tolist() if recent else []
        for step, value in enumerate(values, start=self.num_steps - len(values) + 1):
            if not math.isfinite(value):
                raise self._divergence(f"the loss became {value}", f"step {step}")

    def check_weights(self, model: nn.Module) -> None:
        """Check that the weights are finite, which the loss shows only one step later.

        Raises:
            DivergenceError: they are not.
        """
        tensors = [*model.parameters(), *(one for one in model.buffers() if one.is_floating_point())]
        largest = torch.nn.utils.get_total_norm([one.detach() for one in tensors], norm_type=math.inf)
        if not torch.isfinite(largest):
            raise self._divergence(f"the weights became {float(largest)}", f"after step {self.num_steps}")

    def _divergence(self, what: str, place: str) -> DivergenceError:
        lower = "lower optim.lr" if self.lr is None else f"lower optim.lr from {self.lr:.3g}"
        return DivergenceError(
            f"{what} in epoch {self.epoch + 1}, {place}; {lower}, set optim.max_grad_norm, or start from "
            "weights that fit"
        )

    def underway(self, worker: Worker, seconds: float) -> Underway:
        """The same of all workers together."""
        self.check()
        names, totals = self._totals(worker, 1)
        losses = dict(zip(names, totals, strict=False))
        if not math.isfinite(losses["loss"]):  # another worker's
            raise self._divergence(f"the loss became {losses['loss']}", f"by step {self.num_steps}")
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
        DivergenceError: the loss or the weights stopped being finite.
    """
    tally = Tally.of(epoch, begun, step.worker)
    tally.lr = step.recipe.optim.full_lr
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
    tally.check_weights(step.model)
    return tally.result(step.worker, step.feed.num_shares)
