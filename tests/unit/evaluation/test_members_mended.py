"""Each defect of Foolbox that a member mends: shown on Foolbox as it is, so that we notice when it is gone
upstream, and cured in ours.
"""

from typing import Any

import foolbox
import foolbox.attacks as fa
import pytest
import torch
from torch import nn

from temper.attacks import LastPGD
from temper.evaluation.counted_model import held_still
from temper.evaluation.members import (
    CWMember,
    DDNMember,
    EADMember,
    FMNMember,
    HopSkipJumpMember,
    PointwiseMember,
    SaltPepperMember,
)
from temper.evaluation.members.starts import adversarial_starts
from temper.spec import Threat


class Linear(nn.Module):
    """Two classes apart by one plane; the nearest adversarial is known in every norm."""

    def __init__(self, offset: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(192, generator=torch.Generator().manual_seed(0)) * scale)
        self.offset = offset

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return (images - 0.5).flatten(1) @ self.weight + self.offset

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.scores(images)
        return torch.stack([-scores, scores], dim=1)


def grey(count: int, seed: int = 1) -> torch.Tensor:
    """Images near the middle of [0,1], so that its border is out of reach."""
    return 0.5 + 0.1 * (torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) - 0.5)


def ours(member: Any, model: nn.Module, images: torch.Tensor, norm: Any, eps: float) -> torch.Tensor:
    labels = model(images).argmax(1)
    with held_still(model, images) as still:
        return member.run(still.folded, images, labels, Threat(norm=norm, eps=eps), 0)  # type: ignore[no-any-return]


def stock(attack: Any, model: nn.Module, images: torch.Tensor, eps: float | None = None) -> Any:
    """Foolbox's own (raw, clipped, success)."""
    torch.manual_seed(0)
    fmodel = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))
    return attack(fmodel, images, model(images).argmax(1), epsilons=eps)


def lengths(images: torch.Tensor, found: torch.Tensor, order: float = 2) -> torch.Tensor:
    return torch.linalg.vector_norm((found - images).flatten(1), order, dim=1)


def test_fmn_in_l2_projects() -> None:
    """Defect 1: norms over norms is 1, so no step is projected."""
    model, images = Linear(offset=10.0).eval(), grey(12)
    nearest = model.scores(images).detach().abs() / model.weight.detach().norm()
    raw, _, success = stock(fa.L2FMNAttack(steps=50), model, images)
    assert success.all()
    assert (lengths(images, raw) / nearest).median() > 1.25
    found = ours(FMNMember(steps=50), model, images, "l2", 30.0)
    assert ((lengths(images, found) / nearest).median() - 1).abs() < 0.05
    ddn = ours(DDNMember(steps=50), model, images, "l2", 30.0)
    assert (lengths(images, found).median() / lengths(images, ddn).median() - 1).abs() < 0.05


def test_fmn_in_linf_finds_the_nearest() -> None:
    model, images = Linear(offset=10.0).eval(), grey(12)
    nearest = model.scores(images).detach().abs() / model.weight.detach().abs().sum()
    found = ours(FMNMember(steps=100), model, images, "linf", 1.0)
    assert (model(found).argmax(1) != model(images).argmax(1)).all()
    assert ((lengths(images, found, torch.inf) / nearest).median() - 1).abs() < 0.05


def test_fmn_does_not_stop_short_of_the_boundary() -> None:
    """At the border of [0,1] each step goes a share of what is left, and so never arrives."""
    model = Linear().eval()
    # Half of the coordinates can't move where they should: the score falls by half of what is expected.
    images = torch.full((1, 3, 8, 8), 0.5)
    blocked = torch.arange(192) % 2 == 0
    images.view(-1)[blocked] = (model.weight[blocked] < 0).float()
    free = model.weight[~blocked].abs()
    with torch.no_grad():
        model.offset = -float(model.scores(images)) + 0.2 * float(free.sum())
    assert model(images).argmax(1).item() == 1
    _, _, success = stock(fa.L1FMNAttack(steps=60), model, images)
    found = ours(FMNMember(steps=60), model, images, "l1", 192.0)
    assert model(found).argmax(1).item() == 0
    assert not success.any()


def test_hop_skip_jump_does_not_depend_on_the_batch_size() -> None:
    """Defect 2: norms are taken over the whole batch, so that steps shrink as it grows."""
    model, images = Linear().eval(), grey(16)
    nearest = model.scores(images).detach().abs() / model.weight.detach().norm()
    few = {"steps": 6, "initial_gradient_eval_steps": 40}
    single = [stock(fa.HopSkipJumpAttack(**few), model, images[i : i + 1])[0] for i in range(6)]
    alone = (lengths(images[:6], torch.cat(single)) / nearest[:6]).median()
    together = (lengths(images, stock(fa.HopSkipJumpAttack(**few), model, images)[0]) / nearest).median()
    assert together > 1.2 * alone
    labels = model(images).argmax(1)
    member = HopSkipJumpMember(steps=6, evaluations=40)
    with held_still(model, images) as still:
        found = member.nearest(still.folded, images, labels, "l2", 0.0, 0)
        every = [
            member.nearest(still.folded, images[i : i + 1], labels[i : i + 1], "l2", 0.0, 0) for i in range(6)
        ]
    ratio = float((lengths(images, found) / nearest).median())
    assert ratio == pytest.approx(
        float((lengths(images[:6], torch.cat(every)) / nearest[:6]).median()), rel=0.15
    )
    assert (model(found).argmax(1) != labels).all()
    # And as near as Foolbox gets where its norms are those of one image.
    assert ratio < 1.15 * alone


def rare() -> tuple[Linear, torch.Tensor, torch.Tensor]:
    """A model with a class that noise never hits; an image of that class; and one of the common class."""
    model = Linear()
    norm = float(model.weight.detach().norm())
    model.offset = -2.5 * norm
    marked = (0.5 + 0.3 * model.weight.detach().sign()).view(1, 3, 8, 8)
    assert model(marked).argmax(1).item() == 1
    assert model(grey(1)).argmax(1).item() == 0
    return model.eval(), marked, grey(1)


@pytest.mark.parametrize(
    ("attack", "member", "norm", "message"),
    [
        (
            fa.HopSkipJumpAttack(steps=1),
            HopSkipJumpMember(steps=1, evaluations=10),
            "l2",
            "init_attack failed",
        ),
        (fa.PointwiseAttack(), PointwiseMember(rounds=1), "l0", None),
    ],
    ids=["hop_skip_jump", "pointwise"],
)
@pytest.mark.filterwarnings("ignore:LinearSearchBlendedUniformNoiseAttack failed")
def test_one_image_without_a_start_does_not_end_the_batch(
    attack: Any, member: Any, norm: Any, message: str | None
) -> None:
    """Defect 6."""
    model, marked, common = rare()
    images, room = torch.cat([marked, common]), {"l2": 30.0, "l0": 64}[norm]
    with pytest.raises((ValueError, AssertionError), match=message):
        stock(attack, model, images, None)
    # With an image of the rare class in the batch, that is the start; without one there is none.
    assert (model(ours(member, model, images, norm, room)).argmax(1) == torch.tensor([0, 1])).all()
    alone = torch.cat([common, grey(1, seed=2)])
    assert torch.equal(ours(member, model, alone, norm, room), alone)


def test_starts_are_where_they_are_said_to_be() -> None:
    model, marked, common = rare()
    images = torch.cat([marked, common])
    labels = model(images).argmax(1)
    generator = torch.Generator().manual_seed(0)
    starts, found = adversarial_starts(model, images, labels, generator)
    assert found.tolist() == [True, True]
    assert (model(starts).argmax(1) != labels).all()
    # Noise comes first, and weak noise before strong; the image of another class comes last.
    assert not torch.equal(starts[0], common[0])
    assert torch.equal(starts[1], marked[0])
    starts, found = adversarial_starts(model, common, labels[1:], generator)
    assert found.tolist() == [False]
    assert torch.equal(starts, common)


@pytest.mark.parametrize(
    ("attack", "member", "norm"),
    [
        (
            fa.L2CarliniWagnerAttack(binary_search_steps=1, steps=1),
            CWMember(searches=1, steps=1, first_weight=1e-3),
            "l2",
        ),
        (
            fa.EADAttack(binary_search_steps=1, steps=1, decision_rule="L1"),
            EADMember(searches=1, steps=1),
            "l1",
        ),
    ],
    ids=["cw", "ead"],
)
def test_a_black_image_is_no_success(attack: Any, member: Any, norm: Any) -> None:
    """Defect 9: what was not found is returned as black, and counted where black is of another class."""
    model, images = Linear(), grey(8)
    # Far from the plane, and black on its other side.
    model.weight.data += 0.3
    model.offset = 20.0
    assert (model(images).argmax(1) == 1).all()
    assert model(torch.zeros(1, 3, 8, 8)).argmax(1).item() == 0
    raw, _, success = stock(attack, model, images)
    assert not raw.any()
    assert success.all()
    assert torch.equal(ours(member, model, images, norm, 5.0), images)


@pytest.mark.parametrize(
    "member", [FMNMember(steps=2), LastPGD(steps=2, rel_stepsize=0.5), SaltPepperMember(steps=2)], ids=repr
)
def test_an_excess_of_float_error_is_no_reason_to_stop(member: Any) -> None:
    """Defect 7: the bounds are asserted to the last digit, without a message."""
    model, images = Linear().eval(), grey(4)
    images[0, 0, 0, 0] = 1 + 1e-6
    with pytest.raises(AssertionError, match=r"^$"):
        stock(fa.LinfPGD(steps=1), model, images, 0.1)
    assert (ours(member, model, images, member.geometries[0], 1) <= 1).all()


def test_gradients_do_not_pile_up_in_the_model() -> None:
    """Defect 4."""
    model, images = Linear().eval(), grey(4)
    stock(fa.LinfPGD(steps=1), model, images, 0.1)
    assert model.weight.grad is not None
    model.weight.grad = None
    ours(LastPGD(steps=1, rel_stepsize=0.5), model, images, "linf", 0.1)
    assert model.weight.grad is None
