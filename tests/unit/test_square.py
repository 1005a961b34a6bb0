"""Square: properties, its patterns and schedule against the paper, and torchattacks."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor

from temper.attacks import Square, apgd
from temper.attacks.losses import is_fooled, margin
from temper.attacks.norms import distances
from temper.attacks.squares import Proposal, pattern, tiles, transfer_windows
from temper.spec import Threat

EPS = {"linf": 0.12, "l2": 0.8}
norms = pytest.mark.parametrize("norm", list(EPS))


def threat(norm: Any, times: float = 1.0) -> Threat:
    return Threat(norm=norm, eps=times * EPS[norm])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@norms
def test_stays_in_the_ball_and_repeats(norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    before = images.clone()
    attack = Square(num_queries=40)
    first, again = (attack.perturb(network, images, labels, threat(norm), seeded()) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert 0 <= first.min() <= first.max() <= 1
    assert distances(norm, first, images).max() <= EPS[norm] * (1 + 1e-5)
    other = attack.perturb(network, images, labels, threat(norm), seeded(1))
    assert not torch.equal(first, other)


@norms
def test_eps_0_is_the_identity(norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    found = Square(num_queries=5).perturb(network, images[:8], labels[:8], threat(norm, 0), seeded())
    assert torch.equal(found, images[:8])


@norms
def test_more_queries_never_raise_the_margin(norm: Any, hardened_digits: Any) -> None:
    """The same seed, cut short; the side is fixed, because the schedule depends on the budget."""
    network, images, labels = hardened_digits
    lowest: list[Tensor] = []

    class Watched(Square):
        def _side(self, norm: Any, query: int, images: Tensor) -> int:
            return 3

    for num_queries in (1, 2, 10, 60):
        attack = Watched(num_queries=num_queries)
        found = attack.perturb(network, images, labels, threat(norm), seeded())
        lowest.append(-margin(network(found), labels))
    for fewer, more in pairwise(lowest):
        assert (more <= fewer + 1e-5).all()
    assert (lowest[-1] < lowest[0] - 0.1).double().mean() > 0.5


@norms
def test_queries_are_counted_and_fooled_images_leave(norm: Any, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    asked: list[int] = []

    def counted(points: Tensor) -> Tensor:
        assert not points.requires_grad
        assert not torch.is_grad_enabled()
        asked.append(len(points))
        return network(points)

    found = Square(num_queries=60).perturb(counted, images, labels, threat(norm, 3), seeded())
    assert len(asked) == 60
    assert asked == sorted(asked, reverse=True)
    num_standing = int((~is_fooled(network(found), labels)).sum())
    assert num_standing <= asked[-1] < asked[0] == 256


@norms
def test_an_image_has_its_own_squares_whatever_its_neighbours_are(norm: Any, hardened_digits: Any) -> None:
    """Half of the batch is exchanged for images that fall at once; the other half is searched as before."""
    network, images, labels = hardened_digits
    attack = Square(num_queries=30)
    found = attack.perturb(network, images, labels, threat(norm), seeded())
    exchanged, wrong = images.clone(), labels.clone()
    wrong[128:] = (network(images[128:]).argmax(1) + 1) % 10
    other = attack.perturb(network, exchanged, wrong, threat(norm), seeded())
    assert torch.allclose(other[:128], found[:128], atol=1e-5)
    moved = (found != images).any(1)
    assert len({tuple(rows.flatten().tolist()) for rows in moved[:32]}) > 8


def test_the_side_follows_the_schedule_of_the_paper() -> None:
    """Of 10,000 queries at 32 x 32: sqrt(0.8 * 1024) = 28.6, halved in area at 10, 50, 200, ... queries."""
    images = torch.zeros(1, 3, 32, 32)
    places = [1, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 9999]
    halved = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    attack = Square(num_queries=10_000)
    wanted = [max(1, round(math.sqrt(0.8 / 2**times * 1024))) for times in halved]
    assert [attack._side("linf", place, images) for place in places] == wanted
    assert wanted[0] == 29
    shorter = Square(num_queries=1000)
    assert [shorter._side("linf", math.ceil(place / 10), images) for place in places[:-1]] == wanted[:-1]
    sides = [attack._side("l2", place, images) for place in places]
    assert all(side % 2 == 1 and 3 <= side <= 31 for side in sides)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (7, 12), (2, 5), (1, 1)])
@norms
def test_images_of_any_shape(norm: Any, height: int, width: int) -> None:
    images = torch.rand(3, 3, height, width, generator=seeded())
    attack, labels = Square(num_queries=50), torch.tensor([0, 1, 2])
    small = Threat(norm=norm, eps=0.2)
    found = attack.perturb(lambda points: points.mean((2, 3)), images, labels, small, seeded())
    assert distances(norm, found, images).max() <= 0.2 + 1e-5
    assert found.isfinite().all()


def test_squares_reach_every_corner() -> None:
    images = torch.zeros(400, 1, 8, 8)
    proposal = Square(num_queries=10_000)._draw("linf", images, 9999, seeded())
    assert proposal.side == 1
    assert proposal.mask(0, images).any(0).all()
    assert proposal.mask(0, images).flatten(1).sum(1).tolist() == [1] * 400
    assert set(proposal.signs.flatten().tolist()) == {-1.0, 1.0}


def test_the_pattern_of_l2_by_hand() -> None:
    """A square of 5: halves of 2 x 5 and 3 x 5, centres in row 1 and column 2, three rings of 1, 1/4, 1/9."""
    outer, middle, inner = 1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1
    upper = torch.tensor([[outer, middle, middle, middle, outer], [outer, middle, inner, middle, outer]])
    lower = torch.cat([upper, upper[:1]])
    wanted = torch.cat([upper / upper.norm(), -lower / lower.norm()])
    assert torch.allclose(pattern(5), wanted / wanted.norm(), atol=1e-6)
    assert [float(pattern(side).norm()) for side in (1, 2, 3, 8)] == pytest.approx([1] * 4)


def test_tiles_fill_the_image_evenly() -> None:
    start = tiles(torch.zeros(50, 3, 20, 20), seeded())
    assert start.flatten(1).norm(dim=1).tolist() == pytest.approx([1] * 50, rel=1e-5)
    parts = start.view(50, 3, 5, 4, 5, 4).square().sum((3, 5)).sqrt()
    assert torch.allclose(parts, torch.full_like(parts, 1 / math.sqrt(75)), atol=1e-5)
    assert torch.allclose(start.mean((0, 2, 3)), torch.zeros(3), atol=1e-3)


def test_a_window_takes_the_budget_of_another() -> None:
    """By the paper's algorithm 3, in loops, for one image at a time; nothing is near a bound of [0,1]."""
    images = torch.full((6, 3, 9, 9), 0.5)
    best = images + 0.02 * torch.randn(images.shape, generator=seeded())
    best[3:] = images[3:] + 0.3 * (best - images)[3:]
    eps = torch.full((6, 1, 1, 1), 0.5)
    proposal = Square(num_queries=100)._draw("l2", images, 20, seeded(2))
    side = proposal.side
    assert 3 <= side < 9
    found = transfer_windows(proposal, best, images, eps) - images
    for i in range(6):
        change = best[i] - images[i]
        (top, left), (top2, left2) = proposal.corners[i].tolist()
        unused = max(0.0, 0.25 - float(change.square().sum()))
        shape = pattern(side) if proposal.is_upright[i] else pattern(side).T
        both = torch.zeros(9, 9, dtype=torch.bool)
        both[top : top + side, left : left + side] = True
        both[top2 : top2 + side, left2 : left2 + side] = True
        wanted = change.clone()
        for channel in range(3):
            available = math.sqrt(float(change[channel][both].square().sum()) + unused / 3)
            old = change[channel, top : top + side, left : left + side]
            mixed = float(proposal.signs[i, channel]) * shape + old / old.norm()
            wanted[channel, top2 : top2 + side, left2 : left2 + side] = 0
            wanted[channel, top : top + side, left : left + side] = mixed / mixed.norm() * available
        assert float(wanted.norm()) == pytest.approx(max(0.5, float(change.norm())), rel=1e-4)
        assert torch.allclose(found[i], wanted * 0.5 / wanted.norm(), atol=1e-5)


def test_an_empty_window_is_filled_by_the_pattern_alone() -> None:
    images = torch.full((1, 3, 8, 8), 0.5)
    proposal = Proposal(
        5, torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(1, 3, 1, 1), torch.ones(1, 1, 1, 1) > 0
    )
    found = transfer_windows(proposal, images, images, torch.full((1, 1, 1, 1), 0.3)) - images
    assert torch.allclose(found[0, :, :5, :5], pattern(5).expand(3, 5, 5) * 0.3 / math.sqrt(3), atol=1e-6)
    assert found[0, :, 5:].abs().max() == 0


def test_l1_is_refused() -> None:
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="square supports the norms linf and l2, got l1"):
        Square().perturb(lambda points: points.mean((2, 3)), images, labels, Threat(norm="l1", eps=4))


@norms
def test_square_is_as_strong_as_that_of_torchattacks(norm: Any, hardened_digits: Any) -> None:
    """On the images that gradients can fool, by what stands after three searches: single ones differ by two.

    One-sided, because theirs never reaches the last row and column of an image.
    """
    network, images, labels = hardened_digits
    reachable = apgd(network, images, labels, norm, EPS[norm], steps=30, start=images).fooled
    images, labels = images[reachable], labels[reachable]
    ours, theirs = torch.ones(2, len(labels), dtype=torch.bool)
    attack = Square(num_queries=400)
    settings: Any = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": EPS[norm], "n_restarts": 1}
    for seed in range(3):
        with torch.random.fork_rng():
            found = torchattacks.Square(network, n_queries=400, seed=seed, **settings)(images, labels)
        theirs &= network(found).argmax(1) == labels
        ours_found = attack.perturb(network, images, labels, threat(norm), seeded(seed))
        ours &= network(ours_found).argmax(1) == labels
    assert 0 < theirs.sum() < len(labels) - 5
    assert ours.sum() <= theirs.sum() + 2
