"""One epoch: every batch in turn, and the means of its losses."""

import torch
from torch import Tensor

from temper.errors import TrainingError
from temper.seeds import derive_seed
from temper.training.feed import paired_batches
from temper.training.state import Passes
from temper.training.step import TrainStep

CHECK_STEPS = 50
"""Steps between two looks at the loss: each look waits for the device."""


def run_epoch(step: TrainStep, epoch: int) -> tuple[dict[str, float], Passes]:
    """Mean training losses of one epoch over all ranks, and the passes that it took.

    Raises:
        TrainingError: the loss stopped being finite.
    """
    torch.manual_seed(derive_seed(step.recipe.seed, "epoch", epoch, step.worker.rank))
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
