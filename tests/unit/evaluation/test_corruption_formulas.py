"""Each corruption against a formula, NumPy, SciPy or Pillow."""

import colorsys
import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from torch import Tensor

from temper.evaluation.corruptions import blur, corrupt, digital, filters, weather
from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.fields import pixel_grid, plasma, sample


def draws(count: int = 1, seed: int = 0) -> Draws:
    return Draws(torch.arange(count), seed, "test")


def random_images(count: int, height: int = 32, width: int = 32, seed: int = 5) -> Tensor:
    """uint8 (count,3,height,width), every pixel on its own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


# --- blur -------------------------------------------------------------------------------------


def test_convolution_equals_scipy() -> None:
    images = torch.rand(2, 3, 14, 17, generator=torch.Generator().manual_seed(0))
    kernels = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(1))
    blurred = filters.convolve(images, kernels)
    for image, kernel, ours in zip(images, kernels, blurred, strict=True):
        for channel, result in zip(image, ours, strict=True):
            theirs = scipy.ndimage.convolve(channel.numpy(), kernel.numpy(), mode="nearest")
            assert np.abs(result.numpy() - theirs).max() < 1e-5


@pytest.mark.parametrize("sigma", [0.25, 0.9, 2.0, 30.0])
def test_smoothing_equals_scipy(sigma: float) -> None:
    field = torch.rand(1, 20, 23, generator=torch.Generator().manual_seed(0))
    theirs = scipy.ndimage.gaussian_filter(field[0].numpy(), sigma, mode="reflect", truncate=4.0)
    assert np.abs(filters.smooth(field, sigma)[0].numpy() - theirs).max() < (1e-5 if sigma > 0.25 else 1e-3)


@pytest.mark.parametrize(("radius", "softness"), [(3, 0.1), (6, 0.5), (10, 0.5)])
def test_the_spread_of_a_disk(radius: float, softness: float) -> None:
    """Along each axis r^2 / 4 of the disk, plus the softness squared, plus 1/12 of a pixel."""
    kernel = filters.disk(radius, softness, torch.device("cpu"))[0]
    line = torch.arange(len(kernel)).double() - len(kernel) // 2
    soft = softness**2 if softness > 0.3 else 0.0
    assert float(kernel.sum()) == pytest.approx(1)
    for axis in (0, 1):
        spread = float((kernel.sum(axis) * line**2).sum())
        assert spread == pytest.approx(radius**2 / 4 + soft + 1 / 12, rel=0.02)


def test_motion_is_half_a_gaussian_along_its_angle() -> None:
    degrees = torch.tensor([0.0, 90.0, 30.0, -45.0])
    kernels = filters.motion(radius=4, sigma=2.0, degrees=degrees)
    weights = np.exp(-(np.arange(8) ** 2) / (2 * 2.0**2))
    weights /= weights.sum()
    middle = kernels.shape[-1] // 2
    assert middle == 7
    assert kernels[0, middle, middle:].numpy() == pytest.approx(weights)
    assert kernels[1, middle:, middle].numpy() == pytest.approx(weights)
    line = torch.arange(15).double() - middle
    for kernel, angle in zip(kernels, np.radians(degrees.numpy()), strict=True):
        # To share a place among its neighbours keeps the centre of mass.
        mean = (np.arange(8) * weights).sum()
        assert float((kernel.sum(0) * line).sum()) == pytest.approx(mean * np.cos(angle), abs=1e-6)
        assert float((kernel.sum(1) * line).sum()) == pytest.approx(mean * np.sin(angle), abs=1e-6)


def test_motion_blur_at_an_angle_equals_a_slow_walk() -> None:
    """The mean of the pixels back along the streak, read between pixels, as SciPy reads them."""
    image = random_images(1)[0, 0].numpy() / 255.0
    kernel = filters.motion(5, 1.5, torch.tensor([25.0]))
    ours = filters.convolve(torch.from_numpy(image)[None, None], kernel)[0, 0].numpy()
    y, x = np.mgrid[0:32, 0:32].astype(float)
    weights = np.exp(-(np.arange(7) ** 2) / (2 * 1.5**2))
    along_x, along_y = np.cos(np.radians(25)), np.sin(np.radians(25))
    expected = sum(
        weight
        * scipy.ndimage.map_coordinates(image, [y - i * along_y, x - i * along_x], order=1, mode="nearest")
        for i, weight in enumerate(weights)
    )
    assert np.abs(ours - expected / weights.sum())[7:-7, 7:-7].max() < 1e-6


@pytest.mark.parametrize(("reach", "rounds"), [(1, 1), (2, 2), (4, 1)])
def test_glass_only_moves_pixels_and_not_far(reach: int, rounds: int) -> None:
    order = blur.shuffled_positions(draws(3), 20, 26, reach, rounds)
    assert (order.sort(dim=1).values == torch.arange(20 * 26)).all()
    moved_down = order // 26 - torch.arange(20 * 26) // 26
    moved_right = order % 26 - torch.arange(20 * 26) % 26
    assert (order != torch.arange(20 * 26)).double().mean() > 0.5
    # Swapped as a centre once per round, and met by others while they are: a few times the reach at most.
    assert torch.maximum(moved_down.abs(), moved_right.abs()).double().mean() <= 1.5 * reach * rounds
    assert len(order.unique(dim=0)) == 3


def test_zoom_blur_equals_scipy() -> None:
    image = random_images(1)[0].float() / 255
    ours = blur.zoom_blur(image[None], draws(), largest=1.2, num_zooms=5)[0, 1].numpy()
    plain = image[1].numpy().astype(np.float64)
    total = plain.copy()
    for zoom in np.linspace(1, 1.2, 5):
        middle = np.array([15.5, 15.5])
        total += scipy.ndimage.affine_transform(plain, np.eye(2) / zoom, middle - middle / zoom, order=1)
    assert np.abs(ours - total / 6).max() < 1e-5


# --- weather ----------------------------------------------------------------------------------


def test_brightness_equals_hsv() -> None:
    images = random_images(1, 8, 8)
    images[0, :, 0, 0] = 0
    corrupted = corrupt("brightness", 4, images, torch.arange(1), 0)[0].flatten(1).T
    for pixel, ours in zip(images[0].flatten(1).T.tolist(), corrupted.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))
        assert ours == pytest.approx([channel * 255 for channel in expected], abs=0.51)


def test_fog_adds_the_same_clouds_to_any_image() -> None:
    images = random_images(2).float() / 255
    same_row = Draws(torch.tensor([4, 4]), 0, "test")
    foggy = weather.fog(images, same_row, thickness=1.5, roughness=2.0).double()
    highest = images.amax((1, 2, 3), keepdim=True)
    clouds = (foggy * (highest + 1.5) / highest - images) / 1.5
    assert (clouds - clouds[:1, :1]).abs().max() < 1e-5
    assert clouds.min().item() == pytest.approx(0, abs=1e-6)
    assert clouds.max().item() == pytest.approx(1, abs=1e-6)


def test_clouds_are_rougher_the_slower_their_noise_shrinks() -> None:
    """Neighbours differ less in smooth clouds, and clouds do not end at the border of their torus."""
    steps = []
    for roughness in (1.2, 2.0, 3.0):
        field = plasma(draws(8), 64, 64, roughness)
        steps.append(float(field.diff(dim=2).abs().mean()))
        assert float((field[:, :, 0] - field[:, :, -1]).abs().mean()) < 2 * steps[-1] + 0.02
    assert steps[0] > 2 * steps[1] > 2 * steps[2]


def test_snow_whitens_and_its_flakes_lie_twice() -> None:
    black = torch.zeros(3, 3, 32, 32)
    settings = {"std": 0.3, "flake": 1.5, "threshold": 0.5, "radius_px": 8, "sigma_px": 3}
    snowy = weather.snow(black, draws(3), mean=0.3, kept=0.8, **settings)
    # On black: the flakes and 0.2 of the white 0.5; the same upside down.
    flakes = snowy - 0.1
    assert flakes.min() > -1e-6
    assert (flakes - flakes.flip(2, 3)).abs().max() < 1e-5
    assert float(flakes.mean()) > 0.05
    without = weather.snow(black, draws(3), mean=-9.0, kept=0.8, **settings)
    assert (without - 0.1).abs().max() < 1e-6


@pytest.mark.parametrize("side", [28, 96, 128])
def test_frost_is_as_bright_as_a_frosted_window_at_every_size(side: int) -> None:
    texture = weather.frosted_window(draws(8), side, side)
    assert 0.35 < float(texture.mean()) < 0.6
    assert 0.1 < float(texture.std()) < 0.3
    assert texture.min() >= 0
    assert texture.max() <= 1


def test_frost_is_added_to_what_is_kept() -> None:
    images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 0.25)])
    same_row = Draws(torch.tensor([6, 6]), 0, "test")
    icy = weather.frost(images, same_row, kept=0.8, ice=0.5)
    assert (icy[1] - icy[0] - 0.2).abs().max() < 1e-6


# --- digital ----------------------------------------------------------------------------------


def test_contrast_equals_numpy() -> None:
    images = random_images(3)
    ours = corrupt("contrast", 5, images, torch.arange(3), 0).numpy()
    plain = images.numpy() / 255.0
    means = plain.mean((2, 3), keepdims=True)
    # CIFAR-10-C: 0.15 is kept.
    assert np.abs(ours - ((plain - means) * 0.15 + means) * 255).max() < 0.51


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 45), (96, 96)])
@pytest.mark.parametrize("scale", [0.95, 0.65, 0.3])
def test_pixelate_equals_pillow(scale: float, height: int, width: int) -> None:
    images = random_images(2, height, width)
    ours = digital.pixelate(images.float() / 255, draws(2), scale=scale) * 255
    for image, result in zip(images, ours, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        small = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
        theirs = np.asarray(small.resize((width, height), Image.Resampling.BOX))
        # Pillow rounds after each of four passes.
        assert np.abs(result.permute(1, 2, 0).numpy() - theirs).max() < 1.5


def test_jpeg_equals_a_file_of_the_published_quality() -> None:
    images = random_images(2)
    ours = corrupt("jpeg_compression", 5, images, torch.arange(2), 0)
    for image, result in zip(images, ours, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
        assert np.array_equal(result.permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))


def test_reading_at_a_shift_moves_the_image() -> None:
    image = random_images(1, 10, 14).float()
    x, y = pixel_grid(10, 14, image.device)
    assert torch.allclose(sample(image, x, y), image, atol=1e-3)
    shifted = sample(image, x + 3, y - 2)
    assert torch.allclose(shifted[..., 2:, :-3], image[..., :-2, 3:], atol=1e-2)


def test_elastic_transform_without_force_is_the_identity() -> None:
    images = random_images(2).float() / 255
    same = digital.elastic_transform(images, draws(2), jitter_px=0, alpha_px=0, sigma_px=1)
    assert (same - images).abs().max() < 1e-4


def test_jitter_is_an_affine_map_of_three_corners() -> None:
    """On a ramp in x, the map of x can be read off; at the three corners it moves within the jitter."""
    ramp = torch.arange(63.0).expand(1, 3, 63, 63)
    warped = digital.elastic_transform(ramp, draws(), jitter_px=4.0, alpha_px=0, sigma_px=1)[0, 0].double()
    moves = [float(warped[31 + y, 31 + x] - (31 + x)) for x, y in ((21, 21), (21, -21), (-21, -21))]
    assert all(0.01 < abs(move) <= 4 for move in moves)
    inner = warped[15:48, 15:48]
    assert inner.diff(n=2, dim=0).abs().max() < 1e-3
    assert inner.diff(n=2, dim=1).abs().max() < 1e-3
