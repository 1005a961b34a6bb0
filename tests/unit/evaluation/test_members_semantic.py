"""Semantic changes against SciPy, and what the search over them must do."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from temper.evaluation.counted_model import CountedModel
from temper.evaluation.members import BlurMember, BrightnessMember, ContrastMember, SpatialMember
from temper.spec import Threat


def smooth(height: int = 24, width: int = 24) -> torch.Tensor:
    """Two images without sharp edges, dark at the border."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.random((2, 3, height, width)), (0, 0, 2, 2))
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    noise[..., [0, 1, -2, -1], :] = noise[..., [0, 1, -2, -1]] = 0
    return torch.from_numpy(noise).float()


@pytest.mark.parametrize(("height", "width"), [(24, 24), (20, 32)])
@pytest.mark.parametrize("change", [(0.5, 0.0, 0.0), (0.0, 0.4, -1.0), (-1.0, 0.5, 0.25)])
def test_spatial_against_scipy(height: int, width: int, change: tuple[float, float, float]) -> None:
    images, member = smooth(height, width), SpatialMember()
    found = member.apply(images, change).numpy()
    angle = np.deg2rad(30 * change[0])
    # From (row, column) in the result to one in the image, about the centre.
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    moved = np.array([0.1 * height * change[1], 0.1 * width * change[2]])
    for image, other in zip(images.numpy(), found, strict=True):
        for channel, ours in zip(image, other, strict=True):
            reference = ndimage.affine_transform(channel, back, centre - back @ centre - moved, order=1)
            assert np.abs(reference - ours).max() < 1e-4


def test_blur_against_scipy() -> None:
    images = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    found = BlurMember(max_sigma=0.1).apply(images, (0.5,)).numpy()
    reference = ndimage.gaussian_filter(images.numpy(), (0, 0, 0.8, 0.8), mode="mirror", radius=(0, 0, 3, 3))
    assert np.abs(reference - found).max() < 1e-5


def test_contrast_and_brightness_by_hand() -> None:
    image = torch.tensor([0.2, 0.4]).repeat(6).view(1, 3, 2, 2)
    half = ContrastMember(max_change=1).apply(image, (-0.5,)).flatten()[:2]
    double = ContrastMember(max_change=1).apply(image, (1.0,)).flatten()[:2]
    assert half.tolist() == pytest.approx([0.25, 0.35])
    assert double.tolist() == pytest.approx([0.1, 0.5])
    darker = BrightnessMember(max_change=0.2).apply(image, (-0.5,)).flatten()[:2]
    assert darker.tolist() == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize(
    "member",
    [SpatialMember(rotations=3, shifts=3, draws=4), ContrastMember(), BrightnessMember(), BlurMember()],
)
def test_changes_go_from_weak_to_strong_and_stay_in_range(member: SpatialMember | BlurMember) -> None:
    changes = member.changes(0)
    strengths = [max(map(abs, change)) for change in changes]
    assert strengths == sorted(strengths)
    assert strengths[0] > 0
    assert strengths[-1] == 1
    assert changes == member.changes(0)
    assert len(set(changes)) == len(changes)


def test_spatial_tries_the_whole_grid_and_random_draws() -> None:
    member = SpatialMember(rotations=5, shifts=3, draws=7)
    assert len(member.changes(0)) == 5 * 3 * 3 - 1 + 7
    assert {(1.0, -1.0, 1.0), (0.5, 0.0, -1.0)} <= set(member.changes(0))
    assert len(set(member.changes(0)) & set(member.changes(1))) == 5 * 3 * 3 - 1
    with pytest.raises(ValueError, match=r"odd number.*got 4"):
        SpatialMember(rotations=4)


class Brightness(nn.Module):
    """Class 1 where the mean of an image is above a half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = images.mean((1, 2, 3)) - 0.5
        return torch.stack([-light, light], dim=1)


def test_the_weakest_change_that_fools_is_taken_and_then_no_more_is_tried() -> None:
    images = torch.stack([torch.full((3, 8, 8), value) for value in (0.47, 0.525, 0.05)])
    model = CountedModel(Brightness()).eval()
    labels = torch.tensor([0, 1, 0])
    found = BrightnessMember(max_change=0.4, levels=10).run(
        model, images, labels, Threat(norm="semantic", eps=0.5), 0
    )
    # Steps of 0.02, down and up in turn: up by 0.04 for the first, down by 0.04 for the second.
    assert (found - images).mean((1, 2, 3)).tolist() == pytest.approx([0.04, -0.04, 0.2], abs=1e-6)
    # Three clean passes; four, then three changes, and all twenty.
    assert model.num_forward == 3 + 4 + 3 + 20


def test_eps_is_the_share_of_the_range() -> None:
    images, labels = torch.full((1, 3, 8, 8), 0.3), torch.tensor([0])
    for eps in (0.25, 1.0):
        member = BrightnessMember(max_change=0.1)
        found = member.run(Brightness(), images, labels, Threat(norm="semantic", eps=eps), 0)
        assert float((found - images).max()) == pytest.approx(0.1 * eps)
