"""Large batches go through a model portion by portion: nothing changes but the memory that it takes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from temper.attacks import APGD, PGD, DeepFool, Member, NearPGD, PatchPGD, attack_mode, cut, in_portions
from temper.evaluation.counted_model import held_still
from temper.evaluation.members import DDNMember, SLIDEMember
from temper.hardening import FastTraining, PGDTraining
from temper.models import ModelSpec, TaskModel, build_model
from temper.spec import Threat
from temper.training.adversaries import AttackedModel, attack_shares
from temper.training.shares import StepImages

PIXELS = "temper.attacks.portions.PORTION_PIXELS"
MOST = "temper.attacks.portions.MOST_PIXELS"
ATTACKS = [
    PGD(eps=0.03, steps=3),
    NearPGD(eps=0.03, steps=3),
    APGD(steps=4, loss="margin"),
    PatchPGD(eps=0.1, steps=2),
    DeepFool(steps=3),
]


class Watched(nn.Module):
    """A small network of its own, without a twin, that notes how many images go forward and back."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 8 * 8, 4, generator=generator).double())
        self.passes: list[tuple[str, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(("forward", len(images)))
        logits = ((images - 0.5).flatten(1) @ self.weight).tanh()
        if logits.requires_grad:
            logits.register_hook(self._note_backward)  # type: ignore[no-untyped-call]
        return logits

    def _note_backward(self, gradient: Tensor) -> None:
        self.passes.append(("back", len(gradient)))


def images(count: int, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)).double()


def labels(count: int) -> Tensor:
    return torch.arange(count) % 4


def test_a_portion_goes_back_before_the_next_one_goes_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIXELS, 10 * 8 * 8)
    model = Watched()
    with attack_mode(model):
        PGD(eps=0.03, steps=1).perturb(model, images(25), labels(25), torch.Generator().manual_seed(0))
    turns = [(way, count) for count in (10, 10, 5) for way in ("forward", "back")]
    assert model.passes == turns


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.kind)
def test_portions_find_what_the_whole_batch_finds(attack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Watched()

    def found() -> Tensor:
        if isinstance(attack, Member):
            return attack.run(model, images(25), labels(25), Threat(eps=0.03), seed=0)
        perturbed: Tensor = attack.perturb(model, images(25), labels(25), torch.Generator().manual_seed(0))
        return perturbed

    with attack_mode(model):
        whole, passes = found(), list(model.passes)
        model.passes.clear()
        for name in (PIXELS, MOST):
            monkeypatch.setattr(name, 10 * 8 * 8)
        assert torch.allclose(found(), whole, rtol=0, atol=1e-9)
    assert max(count for _, count in passes) == 25
    assert max(count for way, count in model.passes if way == "back") <= 10


@pytest.mark.parametrize(
    ("count", "side", "sizes"), [(128, 64, [128]), (70, 128, [16, 16, 16, 16, 6]), (32, 128, [32])]
)
def test_what_needs_no_gradient_is_cut_where_images_are_many_and_large(
    count: int, side: int, sizes: list[int]
) -> None:
    seen = []

    def model(part: Tensor) -> Tensor:
        seen.append(len(part))
        return part.mean((2, 3))

    batch = torch.zeros(1, 3, 1, 1).expand(count, 3, side, side)
    assert in_portions(model, batch).shape == (count, 3)
    assert seen == sizes


def test_no_images_are_one_portion() -> None:
    assert [len(torch.zeros(0, 3, 8, 8)[rows]) for rows in cut(torch.zeros(0, 3, 8, 8))] == [0]


@pytest.fixture
def network() -> TaskModel:
    return build_model(ModelSpec(backbone="resnet8"), {"target": list("abcd")}, image_size=16, seed=0)


@pytest.mark.parametrize(
    ("adversary", "size"), [(FastTraining(eps=0.03), 12), (PGDTraining(eps=0.03, steps=1), 5)]
)
def test_batch_statistics_are_those_of_the_whole_batch(
    network: TaskModel, adversary: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast training attacks with BatchNorm in training mode: an image's gradient depends on the others."""
    monkeypatch.setattr(PIXELS, 5 * 16 * 16)
    monkeypatch.setattr("temper.training.adversaries.folded_model", lambda model, few: None)
    seen: list[int] = []
    network.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    batch = images(12, side=16).float()
    own = StepImages({"target": batch}, {"target": labels(12)}, {})
    attack_shares(AttackedModel(network.train()), adversary, [own], seed=0)
    assert max(seen) == size


@pytest.mark.parametrize("member", [DDNMember(steps=10), SLIDEMember(steps=5, rel_stepsize=0.1)])
def test_foolbox_sees_portions_too(network: TaskModel, member: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PIXELS, MOST):
        monkeypatch.setattr(name, 5 * 16 * 16)
    threat, batch = Threat(norm=member.geometries[0], eps=2.0), images(12, side=16).float()
    with held_still(network, batch[:4]) as held:
        own = held.model(batch).argmax(1)
        seen: list[int] = []
        held.folded.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        found = member.run(held.folded, batch, own, threat, seed=0)
        again = member.run(held.folded, batch, own, threat, seed=0)
    assert max(seen) == 5
    assert torch.equal(found, again)
    assert found.shape == batch.shape
