from typing import Any

import foolbox
import pytest
import torch
import torch.nn.functional as F

from temper.attacks import FGSM, PGD, attack_mode
from temper.attacks.norms import project, random_point, steepest

ATTACKS = [
    FGSM(eps=0.03),
    FGSM(eps=0.03, random_start=True),
    FGSM(norm="l2", eps=0.5),
    PGD(eps=0.03, steps=3),
    PGD(eps=0.03, steps=3, restarts=2),
    PGD(norm="l2", eps=0.5, steps=3),
    PGD(norm="l2", eps=0.5, steps=3, random_start=False),
    FGSM(norm="l1", eps=4),
    PGD(norm="l1", eps=4, steps=3),
    PGD(norm="l1", eps=4, steps=3, random_start=False),
]


def distance(norm: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm((a - b).flatten(1), order, dim=1)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_stays_in_the_ball_raises_the_loss_and_repeats(attack: Any, model: Any, batch: Any) -> None:
    images, labels = batch
    before = images.clone()
    first = attack.perturb(model, images, labels, torch.Generator().manual_seed(0))
    again = attack.perturb(model, images, labels, torch.Generator().manual_seed(0))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert not first.requires_grad
    assert first.min() >= 0
    assert first.max() <= 1
    assert distance(attack.norm, first, images).max() <= attack.eps + 1e-6 * max(1, attack.eps)
    assert F.cross_entropy(model(first), labels) > F.cross_entropy(model(images), labels)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_eps_0_is_the_identity(attack: Any, model: Any, batch: Any) -> None:
    images, labels = batch
    still = attack.model_copy(update={"eps": 0.0})
    assert torch.equal(still.perturb(model, images, labels, torch.Generator().manual_seed(0)), images)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_leaves_gradients_and_modes_as_they_were(attack: Any, model: Any, batch: Any) -> None:
    images, labels = batch
    model.train()
    model.backbone.layer1.eval()
    model.heads["source"].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    with attack_mode(model):
        assert not any(module.training for module in model.modules())
        attack.perturb(model, images, labels, torch.Generator().manual_seed(0))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())


def test_attack_mode_restores_after_an_error(model: Any) -> None:
    model.train()
    with pytest.raises(ZeroDivisionError), attack_mode(model):
        raise ZeroDivisionError
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.5)])
def test_pgd_equals_foolbox(norm: Any, eps: float, model: Any, batch: Any) -> None:
    images, labels = batch
    ours = PGD(norm=norm, eps=eps, steps=5, random_start=False).perturb(model, images, labels)
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    fmodel = foolbox.PyTorchModel(model, bounds=(0, 1))
    _, theirs, _ = attack(rel_stepsize=0.5, steps=5, random_start=False)(fmodel, images, labels, epsilons=eps)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("eps", [2.0, 5.0])
def test_pgd_in_l1_is_no_weaker_than_foolbox(eps: float, model: Any, batch: Any) -> None:
    images, labels = batch
    attack = PGD(norm="l1", eps=eps, steps=10, step_size=0.2 * eps, random_start=False)
    ours = attack.perturb(model, images, labels)
    theirs = foolbox.attacks.SparseL1DescentAttack(rel_stepsize=0.2, steps=10)
    fmodel = foolbox.PyTorchModel(model, bounds=(0, 1))
    _, clipped, _ = theirs(fmodel, images, labels, epsilons=eps)
    assert F.cross_entropy(model(ours), labels) > 0.95 * F.cross_entropy(model(clipped), labels)


def test_restarts_keep_the_highest_loss(model: Any, batch: Any) -> None:
    images, labels = batch

    def loss(restarts: int) -> torch.Tensor:
        attack = PGD(eps=0.05, steps=1, restarts=restarts)
        found = attack.perturb(model, images, labels, torch.Generator().manual_seed(0))
        return F.cross_entropy(model(found), labels, reduction="none")

    assert (loss(4) >= loss(1) - 1e-6).all()


def test_projection_and_directions() -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    far = images + torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert distance("l2", project("l2", far, images, 0.3), images).max() <= 0.3 + 1e-6
    assert distance("linf", project("linf", far, images, 0.3), images).max() <= 0.3 + 1e-6
    assert torch.equal(steepest("l2", torch.zeros_like(images)), torch.zeros_like(images))
    assert steepest("linf", torch.full_like(images, float("nan"))).abs().max() == 0
    points = random_point("l2", images, 0.3, torch.Generator().manual_seed(0))
    assert 0 < distance("l2", points, images).min() <= distance("l2", points, images).max() <= 0.3 + 1e-6
