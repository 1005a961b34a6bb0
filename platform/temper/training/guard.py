"""Watching for catastrophic overfitting: PGD against an epoch's first training batch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from temper.attacks import PGD, attack_mode
from temper.hardening import Adversary, FastTraining, Guard
from temper.models import TaskModel
from temper.seeds import derive_seed
from temper.training.losses import StepImages
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
    model: TaskModel, adversary: Adversary, guard: Guard, images: StepImages, worker: Worker, seed: int
) -> float:
    """Robust accuracy 0..1 on ``images``, the first training batch of an epoch on every rank."""
    pgd = PGD(norm=adversary.norm, eps=adversary.eps, steps=guard.steps, step_size=adversary.eps / 4)
    clean, labels = images.clean["target"], images.labels["target"]
    classes = labels if labels.dim() == 1 else labels.argmax(1)
    generator = torch.Generator(worker.device).manual_seed(derive_seed(seed, "guard", worker.rank))
    with attack_mode(model):
        attacked = pgd.perturb(model, clean, classes, generator)
        with torch.no_grad():
            correct = (model(attacked).argmax(1) == classes).sum()
    counts = worker.sum(torch.tensor([float(correct), float(len(classes))], dtype=torch.float64))
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


class Stateful(Protocol):
    """A model, an optimizer, or whatever else a run carries from epoch to epoch."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Snapshot:
    """What a run carried when this was made, to go back to."""

    def __init__(self, *parts: Stateful) -> None:
        self._parts = [(part, copy.deepcopy(part.state_dict())) for part in parts]

    def restore(self) -> None:
        """Make everything as it was."""
        for part, state in self._parts:
            part.load_state_dict(state)
