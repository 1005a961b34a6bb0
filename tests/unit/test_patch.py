"""Patches: where they lie, what they may do, and how near they come to the best patch of a linear model."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from temper.attacks import Attack, Member, PatchAttack, PatchPGD, PatchSearch
from temper.attacks.losses import is_fooled, margin
from temper.attacks.patches import (
    corners_of,
    masks_at,
    patch_side,
    promising_corners,
    rectangles,
    shares_of_places,
)
from temper.spec import Threat

AREA = 0.15
"""Of 8 x 8 pixels: a square of 3 x 3."""
ATTACKS: tuple[Attack | Member, ...] = (
    PatchAttack(locations=4, scout_steps=3, steps=10),
    PatchAttack(locations=2, scout_steps=2, steps=4, loss="dlr", num_goals=2),
    PatchPGD(eps=AREA, steps=5),
    PatchPGD(eps=AREA, steps=3, restarts=3, random_start=False),
    PatchSearch(num_queries=60),
    PatchSearch(num_queries=20, random_frac=1.0),
)
attacks = pytest.mark.parametrize("attack", ATTACKS, ids=repr)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perturb(
    attack: Attack | Member, model: Any, images: Tensor, labels: Tensor, area: float = AREA, seed: int = 0
) -> Tensor:
    if isinstance(attack, Attack):
        within = attack.model_copy(update={"eps": area})
        return within.perturb(model, images, labels, seeded(seed))
    return attack.perturb(model, images, labels, Threat(norm="patch", eps=area), seeded(seed))


def side_of(clean: Tensor, perturbed: Tensor) -> int:
    """Pixel by pixel: the side of the smallest square that holds every place where (3,H,W) differ."""
    _, height, width = clean.shape
    places = [
        (row, column)
        for row in range(height)
        for column in range(width)
        if not torch.equal(clean[:, row, column], perturbed[:, row, column])
    ]
    if not places:
        return 0
    rows, columns = zip(*places, strict=True)
    return 1 + max(max(rows) - min(rows), max(columns) - min(columns))


@pytest.mark.parametrize(
    ("area", "height", "width", "side"),
    [(0.05, 32, 32, 7), (0.25, 8, 8, 4), (0.2499, 8, 8, 3), (1, 8, 8, 8), (0, 8, 8, 0), (1, 8, 32, 8),
     (0.01, 8, 8, 0), (1 / 64, 8, 8, 1), (49 / 1024, 32, 32, 7), (0.05, 224, 224, 50)],
)  # fmt: skip
def test_the_side_is_the_largest_that_fits(area: float, height: int, width: int, side: int) -> None:
    assert patch_side(area, height, width) == side
    assert side**2 <= area * height * width + 1e-6
    assert side == min(height, width) or (side + 1) ** 2 > area * height * width


def test_places_are_uniform_and_spread_and_within_the_image() -> None:
    images = torch.zeros(4000, 3, 6, 9)
    shares = shares_of_places(images, seeded())
    corners = corners_of(shares, 3, 4, images)
    counts = torch.zeros(3, 6).index_put((corners[:, 0], corners[:, 1]), torch.ones(4000), accumulate=True)
    # 222 for each of the 18 places; four standard deviations are 58.
    assert ((counts - 4000 / 18).abs() < 4 * math.sqrt(4000 / 18)).all()
    one = torch.zeros(50, 3, 32, 32)
    starts = shares_of_places(one, seeded(1))
    sequence = torch.stack([corners_of(starts, index, 8, one) for index in range(16)], 1).double()
    gaps = torch.stack([torch.pdist(places).min() for places in sequence])
    drawn = torch.randint(0, 25, (50, 16, 2), generator=seeded(2)).double()
    gaps_at_random = torch.stack([torch.pdist(places).min() for places in drawn])
    assert gaps.mean() > 2 * gaps_at_random.mean()


def test_masks_are_the_squares_at_the_corners() -> None:
    images, corners = torch.zeros(2, 3, 5, 6), torch.tensor([[0, 4], [3, 1]])
    masks = masks_at(corners, 2, images)
    assert masks[0, 0].nonzero().tolist() == [[0, 4], [0, 5], [1, 4], [1, 5]]
    assert masks[1, 0].nonzero().tolist() == [[3, 1], [3, 2], [4, 1], [4, 2]]
    flat = rectangles(corners[1:], torch.tensor([[1, 3]]), images[:1])
    assert flat[0, 0].nonzero().tolist() == [[3, 1], [3, 2], [3, 3]]


@attacks
def test_changes_one_square_only_and_repeats(attack: Attack | Member, hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    images, labels = images[:48], labels[:48]
    before = images.clone()
    first, again = (perturb(attack, network, images, labels) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert not first.requires_grad
    assert 0 <= first.min() <= first.max() <= 1
    sides = [side_of(clean, found) for clean, found in zip(images, first, strict=True)]
    assert max(sides) == 3
    assert not torch.equal(first, perturb(attack, network, images, labels, seed=1))
    raised = margin(network(first), labels) - margin(network(images), labels)
    assert raised.mean() > 1
    assert all(parameter.grad is None for parameter in network.parameters())


@attacks
@pytest.mark.parametrize("area", [0.0, 0.01])
def test_no_area_no_change(attack: Attack | Member, area: float, hardened_digits: Any) -> None:
    """0.01 of 64 pixels is less than one."""
    network, images, labels = hardened_digits
    assert torch.equal(perturb(attack, network, images[:8], labels[:8], area), images[:8])


def test_an_area_is_a_share() -> None:
    with pytest.raises(ValidationError, match="share of the image's area"):
        PatchPGD(eps=8)


class Planes(nn.Module):
    """Logits are linear, so the best patch of every place can be computed."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(192, num_classes, generator=seeded(5)) / 8)

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight  # type: ignore[operator]


def best_margins(model: Planes, images: Tensor, labels: Tensor, side: int) -> Tensor:
    """(B,) the highest margin (best other logit minus that of the label) of any patch: place by place."""
    best = torch.full((len(images),), -torch.inf)
    weight = model.weight.T.view(-1, 3, 8, 8)  # type: ignore[operator]
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        for other in set(range(len(weight))) - {label}:
            along = weight[other] - weight[label]
            now = float(((image - 0.5) * along).sum())
            gain = torch.maximum(along * (1 - image), -along * image).sum(0)
            for top in range(9 - side):
                for left in range(9 - side):
                    more = float(gain[top : top + side, left : left + side].sum())
                    best[row] = max(float(best[row]), now + more)
    return best


@pytest.fixture(scope="module")
def planes() -> tuple[Planes, Tensor, Tensor, Tensor]:
    """Images moved into their class, so that some patches fool and others do not."""
    model, wanted = Planes(), torch.arange(64) % 3
    into = model.weight.T[wanted].view(-1, 3, 8, 8)  # type: ignore[operator]
    images = (torch.rand(64, 3, 8, 8, generator=seeded(6)) + 1.2 * into).clamp(0, 1)
    labels = model(images).argmax(1)
    return model, images, labels, best_margins(model, images, labels, side=3)


def test_finds_the_best_patch_that_there_is(planes: Any) -> None:
    """With goals the loss is linear, so that nothing but the place can be missed."""
    model, images, labels, best = planes
    attack = PatchAttack(locations=16, scout_steps=4, steps=20, num_goals=2)
    answers = model(perturb(attack, model, images, labels))
    assert 40 < (best > 0).sum() < 60, "the case decides nothing"
    assert torch.equal(is_fooled(answers, labels), best > 0)
    standing = best <= 0
    assert (best - margin(answers, labels))[standing].max() < 1e-4


def test_places_at_random_do_without_the_gradient_at_the_image(planes: Any) -> None:
    """A gradient that is cut at the clean images only: no place looks promising, half of them are random."""
    model, images, labels, best = planes

    def cut(points: Tensor) -> Tensor:
        is_clean = len(points) == len(images) and torch.equal(points, images)
        return model(points.detach() if is_clean else points)

    attack = PatchAttack(locations=64, scout_steps=4, steps=20)
    found = is_fooled(model(perturb(attack, cut, images, labels)), labels)
    assert found.sum() > 0.9 * (best > 0).sum()


def test_more_places_find_more(hardened_digits: Any) -> None:
    network, images, labels = hardened_digits
    fooled = []
    for count in (1, 4, 16):
        attack = PatchAttack(locations=count, scout_steps=4, steps=10)
        answers = network(perturb(attack, network, images, labels, area=0.07))
        fooled.append(int(is_fooled(answers, labels).sum()))
    assert fooled[0] + 10 < fooled[1]
    assert fooled[1] < fooled[2] < 256


def test_the_search_without_gradients_finds_what_is_easy_and_nothing_that_is_not_there(planes: Any) -> None:
    model, images, labels, best = planes

    def asked(points: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return model(points)

    attack = PatchSearch(num_queries=400)
    found = is_fooled(model(perturb(attack, asked, images, labels)), labels)
    assert not (found & (best <= 0)).any()
    easy = best > 0.5 * best.max()
    assert easy.sum() >= 5
    assert found[easy].double().mean() >= 0.8
    # The second half, which changes the best patch, is worth more than further random ones.
    only_random = perturb(PatchSearch(num_queries=400, random_frac=1.0), asked, images, labels)
    assert found.sum() > is_fooled(model(only_random), labels).sum()


def test_promising_places_have_the_largest_sums_and_keep_apart() -> None:
    gains = torch.zeros(2, 6, 6)
    gains[0, 1:3, 3:5], gains[0, 4:6, 0:2] = 5.0, 3.0
    gains[1, 3, 3] = 1.0
    corners = promising_corners(gains, 2, 3)
    assert corners[:2, 0].tolist() == [[1, 3], [4, 0]]
    assert corners[0, 1].tolist() in ([2, 2], [2, 3], [3, 2], [3, 3])
    # More than there is room for: they come again.
    assert promising_corners(gains, 6, 3).tolist() == [[[0, 0], [0, 0]]] * 3


def test_one_whole_step_is_the_sign_within_the_square(planes: Any) -> None:
    model, images, labels, _ = planes
    attack = PatchPGD(eps=AREA, steps=1, step_size=1.0, random_start=False)
    found = attack.perturb(model, images, labels, seeded())
    changed = (found != images).any(1)
    points = images.clone().requires_grad_()
    nn.functional.cross_entropy(model(points), labels, reduction="sum").backward()
    expected = (images + points.grad.sign()).clamp(0, 1)  # type: ignore[union-attr]
    assert (changed.flatten(1).sum(1) == 9).all()
    assert torch.equal(found, torch.where(changed[:, None], expected, images))


def test_fooled_images_leave_and_passes_are_counted(planes: Any) -> None:
    model, images, labels, _ = planes
    asked: list[int] = []

    def counted(points: Tensor) -> Tensor:
        asked.append(len(points))
        return model(points)

    attack = PatchAttack(locations=3, scout_steps=2, steps=4)
    perturb(attack, counted, images, labels, area=0.1)
    # One gradient for the places; a climb of n steps asks n + 1 times.
    assert len(asked) <= 1 + 3 * 3 + 5
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] < asked[0] == 64


def test_a_weaker_adversary_has_a_smaller_square_and_the_same_steps() -> None:
    attack = PatchPGD(eps=0.2, steps=4, step_size=0.3)
    assert attack.scaled(0.5) == PatchPGD(eps=0.1, steps=4, step_size=0.3)
    assert attack.scaled(1) is attack
    assert attack.label == "patch 0.2"
