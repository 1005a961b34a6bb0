"""What holds for every member of a suite that is not covered by the tests of the attacks themselves."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from temper.attacks import Member
from temper.evaluation.counted_model import held_still
from temper.evaluation.members import (
    BlurMember,
    BrightnessMember,
    ContrastMember,
    CWMember,
    EADMember,
    FMNMember,
    HopSkipJumpMember,
    PGDL0Member,
    PointwiseMember,
    SaltPepperMember,
    SparseRSMember,
    SpatialMember,
)
from temper.spec import Threat

MEMBERS: tuple[Member, ...] = (
    FMNMember(steps=20),
    CWMember(searches=2, steps=10),
    EADMember(searches=2, steps=10),
    HopSkipJumpMember(steps=2, evaluations=20),
    PGDL0Member(steps=10),
    SparseRSMember(queries=30),
    PointwiseMember(rounds=1),
    SaltPepperMember(steps=20),
    SpatialMember(rotations=3, shifts=3, draws=5),
    ContrastMember(levels=3),
    BrightnessMember(levels=3),
    BlurMember(levels=3),
)
EPS = {"linf": 0.05, "l2": 0.5, "l1": 3.0, "l0": 4, "semantic": 0.5}
CASES = [
    pytest.param(member, norm, id=f"{member!r}-{norm}") for member in MEMBERS for norm in member.geometries
]
DETERMINISTIC = (FMNMember, CWMember, EADMember, ContrastMember, BrightnessMember, BlurMember, SpatialMember)
"""Given their seed, they do the same to every image."""


class Small(nn.Module):
    """A convolution and a linear layer for images of 8 x 8, with random weights."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8 * 64, num_classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
            # No class far ahead of the others.
            self.head.bias -= self(torch.full((1, 3, 8, 8), 0.5))[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.body(images)).flatten(1))
        return logits


def batch(count: int = 10) -> tuple[Small, torch.Tensor, torch.Tensor]:
    model = Small().eval()
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model, images, model(images).argmax(1)


def run(
    member: Member,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    norm: Any,
    eps: float,
    seed: int = 0,
) -> torch.Tensor:
    with held_still(model, images) as still:
        return member.run(still.folded, images, labels, Threat(norm=norm, eps=eps), seed)


@pytest.mark.parametrize(("member", "norm"), CASES)
def test_stays_in_the_threat_model_and_leaves_no_trace(member: Member, norm: Any) -> None:
    model, images, labels = batch()
    given = images.clone()
    model.train()
    found = run(member, model, images, labels, norm=norm, eps=EPS[norm])
    assert found.shape == images.shape
    assert not found.requires_grad
    assert (found >= 0).all()
    assert (found <= 1).all()
    for clean, perturbed in zip(images.double(), found.double(), strict=True):
        change = (perturbed - clean).abs()
        size = {
            "linf": float(change.max()),
            "l2": math.sqrt(float((change**2).sum())),
            "l1": float(change.sum()),
            "l0": sum(bool(change[:, row, column].any()) for row in range(8) for column in range(8)),
            "semantic": 0.0,  # measured in test_members_semantic.py
        }[norm]
        assert size <= EPS[norm] + 1e-5
    assert (found != images).any(), "nothing was tried"
    assert torch.equal(images, given)
    assert model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("member", "norm"), CASES)
def test_same_seed_same_result_and_none_at_eps_0(member: Member, norm: Any) -> None:
    model, images, labels = batch()
    state = torch.get_rng_state()
    first, again = (run(member, model, images, labels, norm=norm, eps=EPS[norm], seed=3) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(run(member, model, images, labels, norm=norm, eps=0), images)


@pytest.mark.parametrize(
    ("member", "norm"), [case for case in CASES if isinstance(case.values[0], DETERMINISTIC)]
)
def test_an_image_does_not_depend_on_its_batch_mates(member: Member, norm: Any) -> None:
    model, images, labels = batch()
    together = run(member, model, images, labels, norm=norm, eps=EPS[norm])
    alone = [
        run(member, model, images[i : i + 1], labels[i : i + 1], norm=norm, eps=EPS[norm]) for i in range(4)
    ]
    assert torch.allclose(together[:4], torch.cat(alone), atol=1e-4)


@pytest.mark.parametrize(("member", "norm"), CASES)
def test_finds_something(member: Member, norm: Any) -> None:
    """With room enough, every attack fools a model without any defence."""
    model, images, labels = batch()
    room = {"linf": 0.5, "l2": 8.0, "l1": 100.0, "l0": 40, "semantic": 1.0}[norm]
    found = run(member, model, images, labels, norm=norm, eps=room)
    fooled = (model(found).argmax(1) != labels).double().mean()
    assert fooled >= (0.1 if norm == "semantic" else 0.9)


def test_members_say_what_they_see() -> None:
    seen = {member.kind: member.sees for member in MEMBERS}
    assert {kind for kind, sees in seen.items() if sees == "decisions"} == {
        "hop_skip_jump",
        "pointwise",
        "salt_pepper",
    }
    assert {kind for kind, sees in seen.items() if sees == "gradients"} == {"fmn", "cw", "ead", "pgd_l0"}
    assert len({member.name for member in MEMBERS}) == len(MEMBERS)


@pytest.mark.parametrize("member", [m for m in MEMBERS if m.sees != "gradients"], ids=repr)
def test_black_boxes_ask_for_no_gradient(member: Member) -> None:
    model, images, labels = batch(4)
    norm = member.geometries[0]
    with held_still(model, images) as still:
        member.run(still.folded, images, labels, Threat(norm=norm, eps=EPS[norm]), 0)
    assert still.num_forward > 0
    assert still.num_backward == 0
