import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from temper.models.heads import BinaryHead
from temper.objective import (
    L2SP,
    ConstantAlpha,
    CosineAlpha,
    LinearAlpha,
    LwF,
    NoSource,
    Objective,
    ProgressAlpha,
)
from temper.schedules import Full
from temper.training.losses import StepLoss
from temper.training.shares import StepImages
from temper.training.start_model import StartModel

LOGITS = {"target": torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), "source": torch.tensor([[0.0, 0.0, 0.0]])}
LABELS = {"target": torch.tensor([0, 1]), "source": torch.tensor([2])}
PHASE = Full().plan(1, ["head"])[0]


def losses(objective: Objective, model: Any, weights: Tensor | None = None, progress: float = 0.0) -> Any:
    """The losses of fixed logits."""
    tasks = ("target", "source") if objective.uses_source else ("target",)
    images = StepImages({t: LOGITS[t] for t in tasks}, {t: LABELS[t] for t in tasks}, {})
    step = StepLoss(objective, PHASE, model, StartModel(), weights)
    return step(lambda passes: [dict(one.images) for one in passes], [images], None, progress)


def test_mean_target_plus_alpha_mean_source_by_hand(model: Any) -> None:
    found = losses(Objective(alpha=0.5), model)
    target = (math.log(2) + math.log(4)) / 2
    assert found["target/loss"].item() == pytest.approx(target)
    assert found["source/loss"].item() == pytest.approx(math.log(3))
    assert found["loss"].item() == pytest.approx(target + 0.5 * math.log(3))


def test_alpha_0_and_no_source_term_read_no_source(model: Any) -> None:
    for objective in (Objective(alpha=0), Objective(alpha=0.5, source_term=NoSource())):
        assert set(losses(objective, model)) == {"loss", "target/loss"}
        assert objective.trained_heads == ("target",)


def test_balanced_weights_make_classes_count_alike(model: Any) -> None:
    weights = Objective(class_weights="balanced").target_class_weights([100, 400])
    assert weights is not None
    assert weights.tolist() == pytest.approx([2.5, 0.625])
    assert (weights * torch.tensor([100.0, 400.0])).sum().item() == pytest.approx(500)
    by_hand = (2.5 * math.log(2) + 0.625 * math.log(4)) / 3.125
    assert losses(Objective(), model, weights)["loss"].item() == pytest.approx(by_hand)


SCHEDULES = [
    (ConstantAlpha(), [1, 1, 1]),
    (LinearAlpha(end=0.2), [1, 0.6, 0.2]),
    (CosineAlpha(), [1, 0.5, 0]),
    (ProgressAlpha(at=(0.0, 0.5, 1.0), factors=(0.0, 2.0, 1.0)), [0, 2, 1]),
]


@pytest.mark.parametrize(("schedule", "expected"), SCHEDULES, ids=lambda value: str(value))
def test_alpha_follows_its_schedule(schedule: Any, expected: list[float], model: Any) -> None:
    objective = Objective(alpha=0.3, alpha_schedule=schedule)
    assert [objective.alpha_at(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.3 * f for f in expected])
    found = losses(objective, model, progress=0.5)
    assert found["loss"].item() == pytest.approx(
        (found["target/loss"] + 0.3 * expected[1] * found["source/loss"]).item()
    )


@pytest.mark.parametrize(
    ("at", "factors", "problem"),
    [
        ((0.0, 1.0), (1.0,) * 3, "at has 2 points, factors 3"),
        ((0.5, 0.2), (1.0, 1.0), r"at must rise within 0..1, got \[0.5, 0.2\]"),
        ((0.0, 1.0), (1.0, -1.0), "cannot be negative"),
    ],
)
def test_points_of_alpha_that_cannot_be(at: Any, factors: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ProgressAlpha(at=at, factors=factors)


def test_l2sp_by_hand() -> None:
    term = L2SP(head_decay=0.5)
    now, start = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.0, 4.0])}
    assert term.distance(now, start).item() == pytest.approx(0.5 * (1 + 4))
    assert term.decay({"h": torch.tensor([2.0, 1.0])}).item() == pytest.approx(0.5 * 0.5 * 5)


def test_lwf_by_hand_and_at_its_start() -> None:
    term = LwF(temperature=2.0)
    logits = torch.tensor([[2 * math.log(3), 0.0]])
    start = torch.tensor([[0.0, 0.0]])
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert term.distillation(logits, start).item() == pytest.approx(4 * divergence, rel=1e-5)
    assert term.distillation(logits, logits).item() == pytest.approx(0, abs=1e-6)


def test_one_logit_is_the_binary_form_of_two_classes() -> None:
    """Loss, gradient and answers: z = (w1 - w0) f, whose BCE is the cross-entropy of both logits."""
    torch.manual_seed(0)
    features, labels = torch.randn(16, 5), torch.randint(0, 2, (16,))
    two = torch.nn.Linear(5, 2)
    one = BinaryHead(5)
    with torch.no_grad():
        one.linear.weight.copy_(two.weight[1:] - two.weight[:1])
        one.linear.bias.copy_(two.bias[1:] - two.bias[:1])
    loss_two = F.cross_entropy(two(features), labels)
    loss_one = F.cross_entropy(one(features), labels)
    bce = F.binary_cross_entropy_with_logits(one.linear(features).squeeze(1), labels.float())
    assert loss_one.item() == pytest.approx(bce.item(), rel=1e-6)
    assert loss_one.item() == pytest.approx(loss_two.item(), rel=1e-6)
    assert torch.equal(one(features).argmax(1), two(features).argmax(1))
    (by_one,) = torch.autograd.grad(loss_one, one.linear.weight)
    (by_two,) = torch.autograd.grad(loss_two, two.weight)
    assert torch.allclose(by_one[0], by_two[1], atol=1e-7)
    assert torch.allclose(by_two[0], -by_two[1], atol=1e-7)
    smooth = F.cross_entropy(one(features), labels, label_smoothing=0.2)
    softened = labels.float() * 0.8 + 0.1
    by_hand = F.binary_cross_entropy_with_logits(one.linear(features).squeeze(1), softened)
    assert smooth.item() == pytest.approx(by_hand.item(), rel=1e-6)
