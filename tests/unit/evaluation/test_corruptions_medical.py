"""The medical corruptions against NumPy, Pillow and what their physics says."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from temper.evaluation.corruptions import corrupt, medical
from temper.evaluation.corruptions.draws import Draws


def draws(count: int = 1, seed: int = 0) -> Draws:
    return Draws(torch.arange(count), seed, "test")


def random_images(count: int, height: int = 32, width: int = 32, seed: int = 5) -> Tensor:
    """uint8 (count,3,height,width), every pixel on its own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_gamma_and_contrast_equal_numpy_and_pillow() -> None:
    images = random_images(1)
    ours = corrupt("gamma_down", 5, images, torch.arange(1), 0).numpy()
    assert np.abs(ours - 255 * (images.numpy() / 255.0) ** 0.4).max() < 0.51
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    theirs = np.asarray(ImageEnhance.Contrast(picture).enhance(1.4)).astype(int)
    result = corrupt("contrast_up", 4, images, torch.arange(1), 0)[0].permute(1, 2, 0).numpy()
    # Pillow rounds the mean and cuts the fraction off.
    assert np.abs(result - theirs).max() <= 2


def test_the_bias_field_is_smooth_and_as_strong_as_said() -> None:
    images = torch.full((4, 3, 40, 40), 0.2)
    field = (medical.bias_field(images, draws(4), strength=0.7) / 0.2).log().double()
    assert field.abs().amax((1, 2, 3)).tolist() == pytest.approx([0.7] * 4, abs=1e-4)
    # A cubic: its fourth differences vanish.
    assert field.diff(n=4, dim=2).abs().max() < 1e-4
    assert field.diff(n=4, dim=3).abs().max() < 1e-4


def test_a_patient_at_rest_is_not_blurred() -> None:
    images = random_images(2).float() / 255
    still = medical.rigid_motion(images, draws(2), num_moves=6, shift=0, degrees=0)
    assert (still - images).abs().max() < 1e-4


def test_a_moving_patient_keeps_the_mean() -> None:
    """Frequency 0 belongs to the pose at rest, and a magnitude can only add."""
    images = random_images(4).float() / 255
    moved = medical.rigid_motion(images, draws(4), num_moves=6, shift=0.05, degrees=5)
    change = moved.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert (moved - images).abs().mean() > 0.02
    assert (change > -1e-5).all()
    assert (change < 0.03).all()
