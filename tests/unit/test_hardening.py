"""Adversaries: what every member of the union keeps, and each against its paper's formula."""

import math
import typing
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from temper.attacks import NearPGD, attack_mode
from temper.attacks.base import image_gradient
from temper.attacks.near_pgd import divergence_from
from temper.hardening import (
    MART,
    TRADES,
    AnyAdversary,
    FastTraining,
    FGSMTraining,
    FreeTraining,
    Guard,
    PatchTraining,
    PGDTraining,
    RampEps,
)
from temper.training.guard import find_collapse

EPS: dict[str, float] = {"linf": 0.03, "l2": 0.5, "l1": 10.0}
MEMBERS = typing.get_args(typing.get_args(AnyAdversary)[0])
PERTURBING = [
    member(norm=norm, eps=eps)
    for member in MEMBERS
    if member not in (FreeTraining, PatchTraining)
    for norm, eps in EPS.items()
]


def distance(norm: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm((a - b).flatten(1), order, dim=1)


@pytest.mark.parametrize("adversary", PERTURBING, ids=repr)
def test_stays_in_the_ball_moves_the_answer_and_repeats(adversary: Any, model: Any, batch: Any) -> None:
    images, labels = batch
    with attack_mode(model):
        first = adversary.perturb(model, images, labels, torch.Generator().manual_seed(0))
        again = adversary.perturb(model, images, labels, torch.Generator().manual_seed(0))
        assert torch.equal(first, again)
        assert not first.requires_grad
        assert 0 <= first.min() <= first.max() <= 1
        assert distance(adversary.norm, first, images).max() <= adversary.eps * (1 + 1e-4)
        moved = divergence_from(model, images)(first)
        assert moved > 0
        if adversary.kind != "trades":
            assert F.cross_entropy(model(first), labels) > F.cross_entropy(model(images), labels)


@pytest.mark.parametrize("adversary", PERTURBING, ids=repr)
def test_eps_0_is_the_identity(adversary: Any, model: Any, batch: Any) -> None:
    images, labels = batch
    still = adversary.scaled(0.0)
    assert torch.equal(still.perturb(model, images, labels, torch.Generator().manual_seed(0)), images)


@pytest.mark.parametrize("member", MEMBERS)
def test_equal_answers_cost_the_clean_loss_at_most_and_gradients_flow(member: Any) -> None:
    """With x' = x every divergence is 0, and what is left is a classification loss."""
    adversary = member(eps=0.1)
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    loss = adversary.loss(logits, logits, labels, F.cross_entropy)
    margin = 0.0
    if member is MART:
        margin = -torch.log(1.0001 - logits.softmax(1).scatter(1, labels[:, None], 0).amax(1)).mean().item()
    assert loss.item() == pytest.approx(F.cross_entropy(logits, labels).item() + margin, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().sum() > 0


def test_trades_climbs_the_divergence_not_the_cross_entropy(model: Any, batch: Any) -> None:
    """One step must follow the gradient of KL(f(x) || f(x')), written out here, whatever the labels."""
    images, labels = batch
    noisy = (images + 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).clamp(
        0, 1
    )
    point = noisy.clone().requires_grad_()
    clean, moved = model(images).detach().softmax(1), model(point).softmax(1)
    by_hand = (clean * (clean.log() - moved.log())).sum()
    (expected,) = torch.autograd.grad(by_hand, point)
    assert torch.allclose(image_gradient(divergence_from(model, images), noisy), expected, atol=1e-5)
    trades = TRADES(eps=8 / 255, steps=3)
    ours = trades.perturb(model, images, labels, torch.Generator().manual_seed(0))
    others = trades.perturb(model, images, (labels + 1) % 3, torch.Generator().manual_seed(0))
    assert torch.equal(ours, others)
    entropy = NearPGD(eps=8 / 255, steps=3, raises="cross_entropy")
    assert not torch.equal(ours, entropy.perturb(model, images, labels, torch.Generator().manual_seed(0)))


def test_near_pgd_takes_the_papers_step() -> None:
    """0.007 at 8/255: on a linear model whose gradient has one sign, three steps go 0.021 from the noise."""
    weight = torch.zeros(3 * 4, 2)
    weight[:, 1] = 1.0
    images = torch.full((1, 3, 2, 2), 0.5)
    attack = NearPGD(eps=8 / 255, steps=3, raises="cross_entropy")
    found = attack.perturb(lambda x: x.flatten(1) @ weight, images, torch.tensor([0]), torch.Generator())
    assert (found - images).flatten().tolist() == pytest.approx([0.021] * 12, abs=0.004)


def test_trades_loss_by_hand() -> None:
    clean, attacked = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    loss = TRADES(eps=0.1, beta=6).loss(clean, attacked, torch.tensor([0]), F.cross_entropy)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert loss.item() == pytest.approx(-math.log(0.75) + 6 * divergence, abs=1e-6)


def test_mart_loss_on_a_worked_example() -> None:
    """Clean answer (3/4, 1/4), attacked (1/2, 1/2), true class 0.

    BCE = -ln(1/2) - ln(1.0001 - 1/2); KL = 3/4 ln(3/2) + 1/4 ln(1/2); its weight is 1.0000001 - 3/4.
    """
    clean, attacked = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    loss = MART(eps=0.1, beta=6).loss(clean, attacked, torch.tensor([0]), F.cross_entropy)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    by_hand = math.log(2) - math.log(0.5001) + 6 * divergence * 0.2500001
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)
    assert by_hand == pytest.approx(1.582312, abs=1e-5)


def test_mart_margin_looks_at_the_most_likely_wrong_class() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0]])
    probability = logits.softmax(1)[0]
    loss = MART(eps=0.1).loss(logits, logits, torch.tensor([0]), F.cross_entropy)
    by_hand = -probability[0].log() - (1.0001 - probability[2]).log()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_fast_takes_ten_255ths_at_eight() -> None:
    """Wong et al.: one step of 1.25 eps from a random start, cut to the ball."""
    weight = torch.zeros(3 * 16 * 16, 2)
    weight[:, 1] = 1.0
    images = torch.full((4, 3, 16, 16), 0.5)
    fast = FastTraining(eps=8 / 255)
    found = fast.perturb(lambda x: x.flatten(1) @ weight, images, torch.zeros(4, dtype=torch.int64))
    moved = (found - images) * 255
    # From u uniform in -8..8 one step of 10 ends at min(u + 10, 8): never under 2, at 8 where u > -2.
    assert moved.min() >= 2 - 1e-3
    assert (moved >= 8 - 1e-3).float().mean().item() == pytest.approx(10 / 16, abs=0.05)
    assert FGSMTraining(eps=0.1).rel_step is None


def test_eps_schedules() -> None:
    ramp = PGDTraining(eps=0.1, step_size=0.02, eps_schedule=RampEps(start=0.2, ramp_frac=0.5))
    assert [ramp.at(p).eps for p in (0, 0.25, 0.5, 1)] == pytest.approx([0.02, 0.06, 0.1, 0.1])
    assert ramp.at(0.25).step_size == pytest.approx(0.012)
    assert PGDTraining(eps=0.1).at(0).eps == 0.1


def test_the_guard_looks_at_drops_only() -> None:
    guard = Guard(max_drop=0.2)
    assert find_collapse(guard, [], 0.0, 0) is None
    assert find_collapse(guard, [0.5], 0.31, 1) is None
    assert find_collapse(guard, [0.3], 0.9, 1) is None
    collapse = find_collapse(guard, [0.5], 0.1, 4)
    assert collapse is not None
    assert collapse.ends_run
    assert collapse.reason == (
        "catastrophic overfitting in epoch 5: robust accuracy on a training batch fell from 50.0% to 10.0%"
    )


SLOW_FALL = [0.6, 0.5, 0.4, 0.3]


def test_the_guard_sees_a_fall_over_several_epochs() -> None:
    """No epoch is worse than the one before by more than 0.11; the third is worse than the first by 0.3."""

    def found_in(guard: Guard) -> list[int]:
        return [n for n in range(4) if find_collapse(guard, SLOW_FALL[:n], SLOW_FALL[n], n) is not None]

    assert found_in(Guard(max_drop=0.25)) == [3]
    assert found_in(Guard(max_drop=0.15)) == [2, 3]
    assert found_in(Guard(max_drop=0.15, window=2)) == [2, 3]
    assert found_in(Guard(max_drop=0.25, window=2)) == []
    collapse = find_collapse(Guard(max_drop=0.25), SLOW_FALL[:3], SLOW_FALL[3], 3)
    assert collapse is not None
    assert "in epoch 4: robust accuracy on a training batch fell from 60.0% to 30.0%" in collapse.reason


def test_the_guard_finds_all_that_neighbours_show() -> None:
    """Window 1 is the rule of arXiv:2001.03994; a longer window finds those falls, and more."""
    seen = torch.rand(200, generator=torch.Generator().manual_seed(0)).tolist()
    found = {
        window: {
            n for n in range(200)
            if find_collapse(Guard(max_drop=0.3, window=window), seen[:n], seen[n], n) is not None
        }
        for window in (1, 2, 5)
    }  # fmt: skip
    assert found[1] == {n for n in range(1, 200) if seen[n - 1] - seen[n] > 0.3}
    assert found[1] < found[2] < found[5]


def test_free_attacks_the_target_only() -> None:
    with pytest.raises(ValidationError, match="kind 'free' attacks the target only, got tasks: both"):
        FreeTraining(eps=0.1, tasks="both")


def test_attacks_with_batch_statistics_leave_no_trace(model: Any, batch: Any) -> None:
    images, labels = batch
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    pgd = PGDTraining(eps=0.03, steps=2)
    found = {}
    for batch_norm in ("eval", "train"):
        with attack_mode(model, batch_norm):  # type: ignore[arg-type]
            found[batch_norm] = pgd.perturb(model, images, labels, torch.Generator().manual_seed(0))
    assert not torch.equal(found["eval"], found["train"])
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_patches_replace_the_images_one_square_each(model: Any, batch: Any) -> None:
    images, labels = batch
    adversary = PatchTraining(eps=0.1, steps=4)
    with attack_mode(model):
        attacked, again = (
            adversary.perturb(model, images, labels, torch.Generator().manual_seed(0)) for _ in range(2)
        )
        assert torch.equal(attacked, again)
        changed = (attacked != images).any(1)
        for one in changed:
            rows, columns = one.nonzero().T
            # 0.1 of 16 x 16 pixels: 5 x 5.
            assert max(rows.max() - rows.min(), columns.max() - columns.min()) == 4
        assert F.cross_entropy(model(attacked), labels) > F.cross_entropy(model(images), labels) + 0.01
        shares = F.one_hot(labels, 3).float()
        assert torch.equal(
            adversary.perturb(model, images, shares, torch.Generator().manual_seed(0)), attacked
        )
    half = adversary.model_copy(update={"eps_schedule": RampEps(ramp_frac=1.0)}).at(0.5)
    assert half.eps == pytest.approx(0.05)
    assert half.step_size is None
    with pytest.raises(ValidationError, match="patch"):
        PatchTraining(norm="l2", eps=0.1)  # type: ignore[arg-type]
