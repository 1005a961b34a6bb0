"""What must hold for every kind of corruption."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from temper.errors import DataError, UsageError
from temper.evaluation.corruptions import CORRUPTIONS, GROUPS, MEDICAL, SEVERITIES, corrupt
from temper.evaluation.corruptions import KINDS as CATALOGUE

KINDS = list(CATALOGUE)

# Their published settings are not monotone: a smaller blur with more swaps, less jitter with more waves.
NOT_MONOTONE = {"glass_blur", "elastic_transform"}


def pictures(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """uint8 (count,3,height,width): soft blobs with a hard-edged slanted bar; grey with one channel."""
    generator = torch.Generator().manual_seed(3)
    blobs = torch.rand(count, channels, 6, 6, generator=generator)
    images = F.interpolate(blobs, (height, width), mode="bicubic").clamp(0, 1) * 0.8 + 0.1
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    place = torch.rand(count, 1, 1, 1, generator=generator)
    images = torch.where((x + 0.4 * y - place).abs() < 0.1, 0.05, images)
    return (images * 255).byte().expand(-1, 3, -1, -1).contiguous()


def distance(kind: str, severity: int, images: Tensor) -> float:
    corrupted = corrupt(kind, severity, images, torch.arange(len(images)), 0)
    if kind == "frost":
        # Its settings darken the image while they add ice, so only what is not a change of contrast counts.
        both = torch.stack([images.flatten(1), corrupted.flatten(1)]).double()
        return 1 - float(np.mean([np.corrcoef(*pair)[0, 1] for pair in both.transpose(0, 1).numpy()]))
    return float(((corrupted.float() - images.float()) / 255).square().mean().sqrt())


def test_there_are_fifteen_common_kinds() -> None:
    assert len(CORRUPTIONS) == 15
    assert len(MEDICAL) >= 4
    assert not set(CORRUPTIONS) & set(MEDICAL)
    own = {"common": CORRUPTIONS, "medical": MEDICAL}
    assert all(kind.group == group for group, kinds in own.items() for kind in kinds.values())
    assert all(CATALOGUE[name] is kind for kinds in GROUPS.values() for name, kind in kinds.items())
    assert set().union(*GROUPS.values()) == set(CATALOGUE)


@pytest.mark.parametrize("kind", KINDS)
def test_images_keep_their_form_and_change(kind: str) -> None:
    images = pictures(4, 28, 36)
    before = images.clone()
    for severity in SEVERITIES:
        corrupted = corrupt(kind, severity, images, torch.arange(4), 0)
        assert corrupted.shape == images.shape
        assert corrupted.dtype == torch.uint8
        assert (corrupted != images).flatten(1).any(1).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_MONOTONE])
def test_a_higher_severity_is_farther_from_clean(kind: str, side: int) -> None:
    images = pictures(24 if side == 32 else 8, side, side)
    distances = [distance(kind, severity, images) for severity in SEVERITIES]
    # Motion blur at 32 pixels has the same sigma twice; its distances then differ by chance.
    assert all(after > 0.97 * before for before, after in itertools.pairwise(distances)), distances
    assert distances[-1] > 1.2 * distances[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_pixels_of_random_kinds(kind: str) -> None:
    images, rows = pictures(3, 32, 32), torch.arange(3)
    first = corrupt(kind, 3, images, rows, 7)
    assert torch.equal(first, corrupt(kind, 3, images, rows, 7))
    is_random = CATALOGUE[kind].is_random
    for other in (corrupt(kind, 3, images, rows, 8), corrupt(kind, 3, images, rows + 5, 7)):
        assert (first != other).flatten(1).any(1).all() == is_random


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_its_neighbours(kind: str) -> None:
    images = torch.cat([pictures(5, 32, 32), pictures(4, 32, 32, channels=1)])
    rows = torch.tensor([9, 4, 2**40, 0, 77, 12, 5, 31, 3])
    together = corrupt(kind, 4, images, rows, 1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(corrupt(kind, 4, images[order], rows[order], 1), together[order])
    for index in range(9):
        alone = corrupt(kind, 4, images[index : index + 1], rows[index : index + 1], 1)
        assert torch.equal(alone[0], together[index])


@pytest.mark.parametrize("kind", KINDS)
def test_grey_stays_grey_beside_colour(kind: str) -> None:
    images = torch.cat([pictures(3, 32, 32, channels=1), pictures(3, 32, 32)])
    for severity in (2, 5):
        corrupted = corrupt(kind, severity, images, torch.arange(6), 0)
        assert (corrupted[:3] == corrupted[:3, :1]).all()
        assert (corrupted[3:] != corrupted[3:, :1]).flatten(1).any(1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_black_and_white_images_survive(kind: str) -> None:
    """No division by an image that has nothing in it: the pixels stay what a corruption could give."""
    images = torch.stack([torch.zeros(3, 16, 16), torch.full((3, 16, 16), 255)]).byte()
    corrupted = corrupt(kind, 3, images, torch.arange(2), 0).float()
    assert corrupted[0].mean() < 160
    assert corrupted[1].mean() > 90


def test_settings_lie_on_lines_between_the_published_sizes() -> None:
    noise, defocus = CORRUPTIONS["gaussian_noise"], CORRUPTIONS["defocus_blur"]
    assert [noise.settings_at(5, side)["std"] for side in (28, 32, 64, 224, 448)] == [
        0.1,
        0.1,
        0.18,
        0.38,
        0.38,
    ]
    assert noise.settings_at(5, 48)["std"] == pytest.approx(0.14)
    assert noise.settings_at(5, 144)["std"] == pytest.approx(0.28)
    # Lengths go on growing with the image.
    assert defocus.settings_at(5, 224)["radius_px"] == 10
    assert defocus.settings_at(5, 448)["radius_px"] == 20
    assert MEDICAL["gamma_up"].settings_at(5, 99) == {"exponent": 1.6}


def test_wrong_calls_are_explained() -> None:
    images, rows = pictures(2, 16, 16), torch.arange(2)
    with pytest.raises(
        UsageError, match=r"no corruption 'hail'. Corruptions: gaussian_noise, .*rician_noise.*, rain"
    ):
        corrupt("hail", 1, images, rows, 0)
    with pytest.raises(UsageError, match="severity is 1, 2, 3, 4 or 5, got 6"):
        corrupt("fog", 6, images, rows, 0)
    with pytest.raises(
        DataError, match=r"expected uint8 images \(B,3,H,W\), got torch.float32 \(2, 3, 16, 16\)"
    ):
        corrupt("fog", 1, images.float(), rows, 0)
    with pytest.raises(DataError, match=r"each of 2 images, got rows \(3,\)"):
        corrupt("fog", 1, images, torch.arange(3), 0)
