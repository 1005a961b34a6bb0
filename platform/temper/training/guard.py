"""Watching for catastrophic overfitting: PGD against an epoch's first training batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from temper.attacks import PGD, attack_mode, perturb_channels
from temper.hardening import Adversary, FastTraining, Guard
from temper.models import TaskModel
from temper.seeds import derive_seed
from temper.spec import Channels
from temper.training.data import generator_of
from temper.training.shares import StepImages
from temper.training.worker import Worker


@dataclass(frozen=True)
class Collapse:
    """An epoch that is thrown away."""

    reason: str
    ends_run: bool


def guard_of(adversary: Adversary | None) -> Guard | None:
    """The guard that ``adversary`` asks for."""
    return adversary.guard if isinstance(adversary, FastTraining) else None


def guarded_accuracy(
    model: TaskModel,
    adversary: Adversary,
    guard: Guard,
    images: Sequence[StepImages],
    worker: Worker,
    seed: int,
    channels: Channels = "colour",
) -> float:
    """Robust accuracy 0..1 on ``images``, this worker's shares of the first training batch of an epoch."""
    pgd = PGD(norm=adversary.norm, eps=adversary.eps, steps=guard.steps, step_size=adversary.eps / 4)
    counts = torch.zeros(2, dtype=torch.float64)
    with attack_mode(model):
        for own in images:
            if not own.weight("target"):
                continue
            clean, labels = own.clean["target"], own.labels["target"]
            classes = labels if labels.dim() == 1 else labels.argmax(1)
            generator = generator_of([own.parts["target"]], worker.device, derive_seed(seed, "guard", 0))
            attacked = perturb_channels(pgd, model, clean, classes, generator, channels)
            with torch.no_grad():
                correct = (model(attacked).argmax(1) == classes).sum()
            counts += torch.tensor([float(correct), float(len(classes))])
    counts = worker.sum(counts)
    return float(counts[0] / counts[1])


def find_collapse(guard: Guard, before: Sequence[float], now: float, epoch: int) -> Collapse | None:
    """What is to be done if robust accuracy is ``now`` after ``epoch``, and was ``before``, oldest first."""
    best = max(before[-guard.window :], default=0.0)
    if best - now <= guard.max_drop:
        return None
    reason = (
        f"catastrophic overfitting in epoch {epoch + 1}: robust accuracy on a training batch fell "
        f"from {best:.1%} to {now:.1%}"
    )
    return Collapse(reason, ends_run=guard.action == "stop")
