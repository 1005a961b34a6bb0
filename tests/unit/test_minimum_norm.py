"""Minimum norms: properties, a formula for linear models, and Foolbox's own searches."""

from typing import Any

import foolbox
import pytest
import torch
from torch import nn

from temper.attacks import minimum_norm
from temper.attacks.losses import is_fooled
from temper.attacks.norms import distances

UPPER = {"linf": 0.4, "l2": 3.0, "l1": 15.0}
norms = pytest.mark.parametrize("norm", list(UPPER))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@norms
def test_distances_are_those_of_points_that_fool(norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    images, labels = images[:64], labels[:64].clone()
    labels[0] = (network(images[:1]).argmax() + 1) % 10
    settings: Any = {"rounds": 3, "steps": 5}
    found, points = minimum_norm(network, images, labels, norm, UPPER[norm], generator=seeded(), **settings)
    again, _ = minimum_norm(network, images, labels, norm, UPPER[norm], generator=seeded(), **settings)
    assert torch.equal(found, again)
    assert 0 <= points.min() <= points.max() <= 1
    fell = found.isfinite()
    assert fell.double().mean() > 0.8
    assert torch.equal(is_fooled(network(points), labels), fell)
    assert torch.equal(distances(norm, points, images)[fell], found[fell])
    assert found[fell].max() <= UPPER[norm] * (1 + 1e-5)
    assert found[0] == 0
    assert torch.equal(points[~fell], images[~fell])


def test_infinite_where_nothing_within_reach_fools(hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    right = ~is_fooled(network(images), labels)
    images, labels = images[right][:32], labels[right][:32]
    upper = torch.zeros(32)
    upper[16:] = 0.5
    found, _ = minimum_norm(network, images, labels, "linf", upper, rounds=2, steps=5, generator=seeded())
    assert found[:16].isinf().all()
    assert found[16:].isfinite().all()


def test_more_rounds_come_nearer(hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    images, labels = images[:64], labels[:64]
    means = []
    for rounds in (0, 2, 8):
        found, _ = minimum_norm(
            network, images, labels, "l2", 3.0, rounds=rounds, steps=10, generator=seeded()
        )
        means.append(float(found.mean()))
    assert means[2] < means[1] < means[0]


@norms
def test_linear_models_have_a_formula(norm: Any) -> None:
    """The distance to the boundary is the gap of the scores over the dual norm of their difference."""
    layer = nn.Linear(48, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 48, generator=seeded(7)))
        layer.bias.zero_()
    network = nn.Sequential(nn.Flatten(), layer).requires_grad_(False)
    images = 0.4 + 0.2 * torch.rand(32, 3, 4, 4, generator=seeded(1))
    labels = network(images).argmax(1)
    difference = (layer.weight[0] - layer.weight[1]).double()
    dual = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
    reach = (images.double().flatten(1) @ difference).abs() / torch.linalg.vector_norm(difference, dual)
    # Within this no bound of [0,1] is met, so that the formula holds.
    inner = reach < 0.35
    found, _ = minimum_norm(network, images, labels, norm, 1.0, rounds=10, steps=30, generator=seeded())
    assert inner.sum() >= 5
    assert (found.double() >= reach * (1 - 1e-5)).all()
    assert (found.double()[inner] / reach[inner]).max() < 1.03
    assert (found.double()[inner] / reach[inner]).median() < 1.01


@norms
def test_as_near_as_the_searches_of_foolbox(norm: Any, hardened_digits: Any) -> None:
    """Theirs is given as many passes: 200 steps, each forward and backward."""
    network, images, labels = hardened_digits
    images, labels = images[:48], labels[:48]
    attack = {
        "linf": foolbox.attacks.LInfFMNAttack(steps=200),
        "l2": foolbox.attacks.DDNAttack(steps=200),
        "l1": foolbox.attacks.L1FMNAttack(steps=200),
    }[norm]
    fmodel = foolbox.PyTorchModel(network, bounds=(0, 1))
    _, points, success = attack(fmodel, images, labels, epsilons=None)
    theirs = distances(norm, points, images).masked_fill(~success, torch.inf)
    ours, _ = minimum_norm(network, images, labels, norm, UPPER[norm], generator=seeded())
    assert float(ours.median()) <= 1.05 * float(theirs.median())
