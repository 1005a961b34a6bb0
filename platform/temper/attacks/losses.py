"""What an attack raises, per image: functions of the logits that say how nearly the model is fooled.

``logits`` are (B,C), ``labels`` and ``goal_labels`` (B,) int64, losses (B,). Without a goal any other class
will do; with one, the loss pulls towards that class.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from temper.errors import UsageError

LossName = Literal["cross_entropy", "dlr", "margin"]
SHORT: dict[LossName, str] = {"cross_entropy": "ce", "dlr": "dlr", "margin": "margin"}
"""In the names of attacks."""

SMALLEST = 1e-12
"""Added to a spread of logits that may be zero."""


def losses_of(name: LossName, logits: Tensor, labels: Tensor, goal_labels: Tensor | None = None) -> Tensor:
    """(B,) losses that an attack raises.

    Raises:
        UsageError: the loss is not defined for so few classes, or labels are shares of classes.
    """
    check_loss(name, logits.shape[1], has_goal=goal_labels is not None)
    if labels.ndim != 1:
        raise UsageError(f"attack labels are classes (B,), got shares of classes {tuple(labels.shape)}")
    if goal_labels is None:
        return {"cross_entropy": cross_entropy, "dlr": dlr, "margin": margin}[name](logits, labels)
    towards = {"cross_entropy": goal_cross_entropy, "dlr": goal_dlr, "margin": goal_margin}[name]
    return towards(logits, labels, goal_labels)


def smallest_num_classes(name: LossName, *, has_goal: bool = False) -> int:
    """How many classes a loss needs: DLR compares the largest logit with the third, or the fourth."""
    return 2 if name != "dlr" else 4 if has_goal else 3


def loss_for(num_classes: int, name: LossName, *, has_goal: bool = False) -> LossName:
    """The loss of that name, or the margin where there are too few classes for it."""
    return name if num_classes >= smallest_num_classes(name, has_goal=has_goal) else "margin"


def check_loss(name: LossName, num_classes: int, *, has_goal: bool = False) -> None:
    """Refuse a loss that so few classes do not define.

    Raises:
        UsageError: says how many classes the loss needs, and which losses there are instead.
    """
    needed = smallest_num_classes(name, has_goal=has_goal)
    if num_classes < needed:
        towards = " towards goal labels" if has_goal else ""
        instead = "; use cross_entropy or margin" if num_classes >= 2 else ""
        raise UsageError(
            f"attack loss {name}{towards} needs at least {needed} classes, "
            f"the model has {num_classes}{instead}"
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of the label."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best other logit minus that of the label; positive where the model is fooled."""
    return _best_other(logits, labels) - _at(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin in units of the spread between the first and the third largest logit.

    Unlike the cross-entropy it keeps its gradient when logits are scaled (Croce and Hein 2020,
    arXiv:2003.01690).
    """
    largest = logits.topk(3, dim=1).values
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + SMALLEST)


def goal_cross_entropy(logits: Tensor, _labels: Tensor, goal_labels: Tensor) -> Tensor:
    """Minus the loss of the goal."""
    return -F.cross_entropy(logits, goal_labels, reduction="none")


def goal_margin(logits: Tensor, labels: Tensor, goal_labels: Tensor) -> Tensor:
    """The logit of the goal minus that of the label."""
    return _at(logits, goal_labels) - _at(logits, labels)


def goal_dlr(logits: Tensor, labels: Tensor, goal_labels: Tensor) -> Tensor:
    """The goal's margin in units of the largest logit over the mean of the third and the fourth."""
    largest = logits.topk(4, dim=1).values
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return goal_margin(logits, labels, goal_labels) / (spread + SMALLEST)


def is_fooled(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) bool: another class wins. Logits that are not finite say nothing, so they do not count."""
    return logits.isfinite().all(1) & (logits.argmax(1) != labels)


def likely_goals(logits: Tensor, labels: Tensor, num_goals: int) -> Tensor:
    """(B,G) the most likely wrong classes, G = min(num_goals, C-1), the likeliest first."""
    num_goals = min(num_goals, logits.shape[1] - 1)
    return _without(logits, labels).topk(num_goals, dim=1).indices


def _at(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).squeeze(1)


def _without(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels[:, None], -torch.inf)


def _best_other(logits: Tensor, labels: Tensor) -> Tensor:
    return _without(logits, labels).amax(1)
