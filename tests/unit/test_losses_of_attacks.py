"""The losses that attacks raise, against values worked by hand."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from temper.attacks.losses import (
    check_loss,
    dlr,
    goal_cross_entropy,
    goal_dlr,
    goal_margin,
    is_fooled,
    likely_goals,
    losses_of,
    margin,
    smallest_num_classes,
)
from temper.errors import UsageError

LOGITS = torch.tensor([[4.0, 1.0, 3.0, -2.0, 0.0], [1.0, 5.0, 2.5, 4.0, 0.0]])
LABELS = torch.tensor([0, 3])
GOALS = torch.tensor([2, 0])


def test_margin_and_dlr_by_hand() -> None:
    """Right by 4 - 3 of a spread 4 - 1; wrong by 5 - 4 of a spread 5 - 2.5."""
    assert margin(LOGITS, LABELS).tolist() == [-1.0, 1.0]
    assert dlr(LOGITS, LABELS).tolist() == pytest.approx([-1 / 3, 1 / 2.5])


def test_losses_with_a_goal_by_hand() -> None:
    """The goal's logit minus the label's, 3 - 4 and 1 - 4; spreads 4 - (1 + 0) / 2 and 5 - (2.5 + 1) / 2."""
    assert goal_margin(LOGITS, LABELS, GOALS).tolist() == [-1.0, -3.0]
    assert goal_dlr(LOGITS, LABELS, GOALS).tolist() == pytest.approx([-1 / 3.5, -3 / 3.25])
    wanted = LOGITS.double().exp()[range(2), GOALS] / LOGITS.double().exp().sum(1)
    assert goal_cross_entropy(LOGITS, LABELS, GOALS).tolist() == pytest.approx(wanted.log().tolist())


def test_dlr_does_not_change_with_scale_or_shift() -> None:
    assert torch.allclose(dlr(1000 * LOGITS + 7, LABELS), dlr(LOGITS, LABELS), atol=1e-5)
    assert torch.allclose(
        goal_dlr(1000 * LOGITS + 7, LABELS, GOALS), goal_dlr(LOGITS, LABELS, GOALS), atol=1e-5
    )


def test_losses_by_name() -> None:
    assert torch.equal(
        losses_of("cross_entropy", LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, reduction="none")
    )
    assert torch.equal(losses_of("dlr", LOGITS, LABELS), dlr(LOGITS, LABELS))
    assert torch.equal(losses_of("dlr", LOGITS, LABELS, GOALS), goal_dlr(LOGITS, LABELS, GOALS))


@pytest.mark.parametrize(
    ("name", "has_goal", "num_classes"),
    [
        ("cross_entropy", False, 2),
        ("margin", False, 2),
        ("dlr", False, 3),
        ("cross_entropy", True, 2),
        ("margin", True, 2),
        ("dlr", True, 4),
    ],
)
def test_too_few_classes_are_refused(name: Any, has_goal: bool, num_classes: int) -> None:
    labels = torch.tensor([0])
    goals = torch.tensor([1]) if has_goal else None
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    assert smallest_num_classes(name, has_goal=has_goal) == num_classes
    assert losses_of(name, logits[:, :num_classes], labels, goals).isfinite().all()
    with pytest.raises(UsageError, match=f"at least {num_classes} classes, the model has {num_classes - 1}"):
        losses_of(name, logits[:, : num_classes - 1], labels, goals)


def test_the_refusal_names_the_losses_that_are_left() -> None:
    with pytest.raises(UsageError, match=r"dlr towards goal labels needs .* 3; use cross_entropy or margin"):
        check_loss("dlr", 3, has_goal=True)


def test_shares_of_classes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got shares of classes \(2, 5\)"):
        losses_of("margin", LOGITS, LOGITS.softmax(1))


def test_logits_that_are_not_finite_fool_nobody() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, float("nan")], [float("-inf"), 1.0], [1.0, 0.0]])
    assert is_fooled(logits, torch.zeros(4, dtype=torch.int64)).tolist() == [True, False, False, False]


def test_goals_are_the_likely_wrong_classes() -> None:
    assert likely_goals(LOGITS, LABELS, 2).tolist() == [[2, 1], [1, 2]]
    assert likely_goals(LOGITS, LABELS, 9).tolist() == [[2, 1, 4, 3], [1, 2, 0, 4]]
