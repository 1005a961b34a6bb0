"""Random rotation, shift, flip, zoom and light of a whole batch at once, with parameters per image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from temper.attacks import draw_rows
from temper.data import AugmentSpec

CACHED_PIXELS = 2**17
"""Per thread of a CPU: with their grid and their result they take 4 MB."""


def augment(images: Tensor, spec: AugmentSpec | None, generator: torch.Generator | None = None) -> Tensor:
    """uint8 images (B,3,H,W) to float32 in [0,1], augmented as ``spec`` says (``None``: not at all).

    Where the source lies outside the image its border is continued. ``generator`` lives on the images'
    device; of a ``PartGenerator`` they get the parameters that they have in the whole batch.
    """
    if spec is None:
        return images.float().div_(255)
    count, device = len(images), images.device

    def uniform(limit: float) -> Tensor:
        drawn = draw_rows(lambda n: torch.rand(n, device=device, generator=generator), count, generator)
        return (drawn * 2 - 1) * limit

    angles = uniform(math.radians(spec.rotation_degrees))
    shifts = torch.stack([uniform(2 * spec.shift_frac), uniform(2 * spec.shift_frac)], dim=1)
    flips = torch.ones(count, device=device)
    if spec.horizontal_flip:
        turned = draw_rows(
            lambda n: torch.randint(0, 2, (n,), device=device, generator=generator), count, generator
        )
        flips = 1 - 2 * turned.float()
    zooms = 1 + uniform(spec.zoom_frac) if spec.zoom_frac else None
    warped = warp(images, angles, shifts, flips, zooms)
    if spec.contrast_frac or spec.brightness or spec.gamma:
        relight(warped, 1 + uniform(spec.contrast_frac), uniform(spec.brightness), uniform(spec.gamma).exp())
    return warped


@torch.no_grad()
def relight(images: Tensor, contrasts: Tensor, shifts: Tensor, powers: Tensor) -> None:
    """Change the light of images (B,3,H,W) in [0,1], in place.

    Of each, by its own number (B,): the distance from its mean is multiplied, a constant is added, and the
    result, back in [0,1], is raised to a power.
    """
    contrasts, shifts, powers = (part.view(-1, 1, 1, 1) for part in (contrasts, shifts, powers))
    means = images.mean(dim=(1, 2, 3), keepdim=True)
    images.sub_(means).mul_(contrasts).add_(means + shifts).clamp_(0, 1).pow_(powers)


@torch.no_grad()
def warp(
    images: Tensor, angles: Tensor, shifts: Tensor, flips: Tensor, zooms: Tensor | None = None
) -> Tensor:
    """Rotate (radians), shift (B,2; 2 is the whole side), flip (-1 or 1) and zoom each of (B,3,H,W).

    A zoom (B,) of 1.1 shows a tenth more on each axis.

    Of uint8 or of float32 in [0,1]; the result is the latter. On a CPU a few images at a time, whose grid and
    pixels stay in its cache.
    """
    height, width = images.shape[-2:]
    cos, sin = angles.cos(), angles.sin()
    across = torch.stack([flips * cos, sin * width / height], dim=1)
    down = torch.stack([-flips * sin * height / width, cos], dim=1)
    if zooms is not None:
        across, down = across * zooms[:, None], down * zooms[:, None]
    warped = torch.empty(images.shape, device=images.device)
    count = len(images)
    if images.device.type == "cpu":
        count = max(1, CACHED_PIXELS * torch.get_num_threads() // (height * width))
    for start in range(0, len(images), count):
        part = slice(start, start + count)
        grid = _grid(across[part], down[part], shifts[part], height, width)
        pixels = images[part]
        if pixels.dtype == torch.uint8:
            pixels = pixels.float().div_(255)
        pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
        torch.clamp(pixels, 0, 1, out=warped[part])
    return warped


def _grid(across: Tensor, down: Tensor, shifts: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel comes from, (B,H,W,2) in -1..1: ``F.affine_grid``, in a tenth of its time on a CPU.

    ``across`` and ``down`` (B,2) are what a pixel further to the right and further down adds to x and y.
    """
    grid = torch.empty(len(shifts), height, width, 2, device=shifts.device)
    for axis in range(2):
        columns = across[:, axis, None] * _centres(width, shifts.device)
        rows = down[:, axis, None] * _centres(height, shifts.device) + shifts[:, axis, None]
        torch.add(columns[:, None, :], rows[:, :, None], out=grid[..., axis])
    return grid


def _centres(size: int, device: torch.device) -> Tensor:
    """Of ``size`` pixels, in -1..1."""
    return (torch.arange(size, device=device) * 2 + 1) / size - 1
