"""LastPGD: the points of PGD and of Foolbox's, and fewer passes once images go round in a circle."""

from typing import Any

import foolbox
import pytest
import torch
from torch import Tensor, nn

from temper.attacks import PGD, LastPGD
from temper.attacks.norms import distances
from temper.spec import Threat

EPS = {"linf": 0.1, "l2": 0.8}
norms = pytest.mark.parametrize("norm", list(EPS))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@norms
@pytest.mark.parametrize("steps", [1, 2, 60])
def test_ends_where_foolbox_ends(norm: Any, steps: int, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    fmodel = foolbox.PyTorchModel(network, bounds=(0, 1))
    reference = attack(rel_stepsize=0.3, steps=steps, random_start=False)
    _, clipped, success = reference(fmodel, images, labels, epsilons=EPS[norm])
    ours = LastPGD(steps=steps, rel_stepsize=0.3, random_start=False)
    found = ours.perturb(network, images, labels, Threat(norm=norm, eps=EPS[norm]))
    # Where a gradient is nearly zero, its sign depends on rounding, and so on who else is in the batch.
    same = (found - clipped).abs().flatten(1).amax(1) < 1e-5
    assert same.float().mean() > 0.98
    assert torch.equal(network(found).argmax(1) != labels, success)


@norms
def test_is_pgd_of_one_start(norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    before = images.clone()
    last = LastPGD(steps=7, rel_stepsize=0.25)
    found = last.perturb(network, images, labels, Threat(norm=norm, eps=EPS[norm]), seeded())
    plain = PGD(norm=norm, eps=EPS[norm], steps=7, step_size=0.25 * EPS[norm])
    assert torch.allclose(found, plain.perturb(network, images, labels, seeded()), atol=1e-5)
    assert torch.equal(images, before)
    assert not found.requires_grad
    assert 0 <= found.min() <= found.max() <= 1
    assert distances(norm, found, images).max() <= EPS[norm] * (1 + 1e-5)
    still = last.perturb(network, images, labels, Threat(norm=norm, eps=0.0), seeded())
    assert torch.equal(still, images)


class Hill(nn.Module):
    """Two logits whose difference is highest where the first channel is ``top`` and the others are 0."""

    def __init__(self, top: float) -> None:
        super().__init__()
        self.top, self.num_images = top, 0

    def forward(self, images: Tensor) -> Tensor:
        self.num_images += len(images)
        red, others = images[:, 0].flatten(1), images[:, 1:].flatten(1)
        height = -(red - self.top).square().sum(1) - others.sum(1)
        return torch.stack([-height, height], dim=1)


@pytest.mark.parametrize("steps", [3, 20, 21, 22, 23])
def test_circles_are_left_at_the_right_point(steps: int) -> None:
    """On steps of 0.02 from 0.5, the hill at 0.57 is passed from 0.56 to 0.58 and back for ever."""
    images, labels = torch.full((3, 3, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    hill = Hill(top=0.57)
    attack = LastPGD(steps=steps, rel_stepsize=0.2, random_start=False)
    found = attack.perturb(hill, images, labels, Threat(eps=0.1))
    red, others = 0.5, 0.5
    for _ in range(steps):
        red = min(red + 0.02, 0.6) if red < 0.57 else red - 0.02
        others = max(others - 0.02, 0.4)
    assert torch.allclose(found[:, 0], torch.tensor(red))
    assert torch.allclose(found[:, 1:], torch.tensor(others))
    # Five steps to the edge of the others, and once round.
    assert hill.num_images <= 3 * min(steps, 8)


def test_passes_are_saved_where_images_circle(hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    count = 0

    def counted(points: Tensor) -> Tensor:
        nonlocal count
        count += len(points)
        logits: Tensor = network(points)
        return logits

    attack = LastPGD(steps=100, rel_stepsize=0.1, random_start=False)
    found = attack.perturb(counted, images, labels, Threat(eps=0.1))
    assert count < 0.8 * 100 * len(images)
    plain = PGD(eps=0.1, steps=100, step_size=0.01, random_start=False)
    expected = plain.perturb(network, images, labels)
    assert torch.equal(network(found).argmax(1), network(expected).argmax(1))
