"""L0: pixels, their projection, and attacks that find the few that matter."""

import itertools
from typing import Any

import eagerpy
import foolbox
import foolbox.attacks as fa
import pytest
import torch
from torch import nn

from temper.evaluation.counted_model import held_still
from temper.evaluation.members import FMNMember, PGDL0Member, PointwiseMember, SparseRSMember
from temper.evaluation.members.pixels import pixels_changed, project_pixels, within_pixels
from temper.spec import Threat


def test_a_pixel_counts_once() -> None:
    clean = torch.full((3, 3, 4, 4), 0.5)
    perturbed = clean.clone()
    perturbed[1, :, 2, 3] = 0.9
    perturbed[2, 0, 0, 0], perturbed[2, 2, 1, 1] = 0.6, 0.5 + 1e-7
    assert pixels_changed(clean, perturbed).tolist() == [0, 1, 2]
    cut = within_pixels(clean, perturbed, 1)
    assert torch.equal(cut[:2], perturbed[:2])
    assert torch.equal(cut[2], clean[2])


@pytest.mark.parametrize("number", [0, 1, 2, 4])
def test_projection_is_the_nearest_point(number: int) -> None:
    """Against every choice of pixels of images of 2 x 2."""
    generator = torch.Generator().manual_seed(number)
    clean = torch.rand(20, 3, 2, 2, generator=generator)
    asked = clean + torch.randn(clean.shape, generator=generator)
    found = project_pixels(asked, clean, torch.full((20,), number))
    assert (pixels_changed(clean, found) <= number).all()
    for image, wish, result in zip(clean, asked, found, strict=True):
        best = min(
            float((_with(image, wish, chosen) - wish).square().sum())
            for chosen in itertools.combinations(range(4), number)
        )
        assert float((result - wish).square().sum()) == pytest.approx(best, rel=1e-5)


def _with(image: torch.Tensor, wish: torch.Tensor, chosen: tuple[int, ...]) -> torch.Tensor:
    result = image.clone()
    for pixel in chosen:
        result[:, pixel // 2, pixel % 2] = wish[:, pixel // 2, pixel % 2].clamp(0, 1)
    return result


class Linear(nn.Module):
    """Two classes apart by one plane: the smallest number of pixels that crosses it is known."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight * torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) ** 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = ((images - 0.5) * self.weight).sum((1, 2, 3)) + 4
        return torch.stack([-scores, scores], dim=1)


def nearest(model: Linear, images: torch.Tensor) -> torch.Tensor:
    """For each image: how many pixels, the strongest first and each to its best colour, cross the plane."""
    logits = model(images)
    towards = torch.where(logits[:, 1] > 0, -1.0, 1.0).view(-1, 1, 1, 1) * model.weight
    gains = (torch.where(towards > 0, 1 - images, images) * towards.abs()).sum(1).flatten(1)
    reached = gains.sort(1, descending=True).values.cumsum(1)
    return 1 + (reached <= logits.abs()[:, :1]).sum(1)


@pytest.mark.parametrize(
    ("member", "spare"),
    [
        (PGDL0Member(steps=20), 0),
        (FMNMember(steps=100), 1),
        (SparseRSMember(queries=600), 1),
        (PointwiseMember(rounds=3), 8),
    ],
    ids=repr,
)
def test_the_fewest_pixels_are_found(member: Any, spare: int) -> None:
    """With as many pixels as are needed (and a few to spare) images fall; with one less none does."""
    model = Linear().eval()
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    needed, labels = nearest(model, images), model(images).argmax(1)
    assert 2 <= int(needed.median()) <= 6
    for number in (2, 3, 4):
        chosen = needed == number
        assert chosen.sum() >= 3
        for extra in (-1, spare):
            with held_still(model, images) as still:
                threat = Threat(norm="l0", eps=number + extra)
                found = member.run(still.folded, images[chosen], labels[chosen], threat, 0)
            fooled = (model(found).argmax(1) != labels[chosen]).double().mean()
            assert fooled == 0 if extra < 0 else fooled >= 0.75


def test_more_pixels_than_the_image_has_change_nothing() -> None:
    model = Linear().eval()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    labels = model(images).argmax(1)
    for member in (PGDL0Member(steps=5), SparseRSMember(queries=20), FMNMember(steps=5)):
        with held_still(model, images) as still:
            found = member.run(still.folded, images, labels, Threat(norm="l0", eps=1000), 0)
        assert found.isfinite().all()


def test_foolbox_counts_coordinates_and_one_too_many() -> None:
    """Defect 9: and a finite number raises."""
    model, images = Linear().eval(), torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    labels, attack = model(images).argmax(1), fa.L0FMNAttack(steps=20)
    with pytest.raises(NotImplementedError, match="L0"):
        attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=1.0)
    assert (_projected(attack, images, 3.0) != 0).flatten(1).sum(1).tolist() == [4] * 8
    changed = _projected(FMNMember().build("l0"), images, 3.0)
    assert (changed != 0).any(1).flatten(1).sum(1).tolist() == [3] * 8
    with held_still(model, images) as still:
        found = FMNMember(steps=20).run(still.folded, images, labels, Threat(norm="l0", eps=4), 0)
    assert 0 < pixels_changed(images, found).max() <= 4


def _projected(attack: Any, images: torch.Tensor, number: float) -> torch.Tensor:
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(5))
    counts = eagerpy.astensor(torch.full((len(images),), number))
    found = attack.project(x=eagerpy.astensor(noise), x0=eagerpy.astensor(images), epsilon=counts)
    return found.raw - images  # type: ignore[no-any-return]
