"""Random rotation, shift and flip of a whole batch at once, with parameters per image."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from temper.spec import Spec


class AugmentSpec(Spec):
    """The augmentation of the reference workflow; each image draws its own parameters."""

    rotation_degrees: float = Field(default=20.0, ge=0, le=180)
    """Uniform in plus and minus this."""
    shift_frac: float = Field(default=0.2, ge=0, le=1)
    """Uniform in plus and minus this share of the side, in each direction."""
    horizontal_flip: bool = True


def augment(images: Tensor, spec: AugmentSpec | None, generator: torch.Generator | None = None) -> Tensor:
    """uint8 images (B,3,H,W) to float32 in [0,1], augmented as ``spec`` says (``None``: not at all).

    Where the source lies outside the image its border is continued. ``generator`` lives on the images'
    device.
    """
    pixels = images.float() / 255
    if spec is None:
        return pixels
    count, device = len(images), images.device

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, device=device, generator=generator) * 2 - 1) * limit

    angles = uniform(math.radians(spec.rotation_degrees))
    shifts = torch.stack([uniform(2 * spec.shift_frac), uniform(2 * spec.shift_frac)], dim=1)
    flips = torch.ones(count, device=device)
    if spec.horizontal_flip:
        flips = 1 - 2 * torch.randint(0, 2, (count,), device=device, generator=generator).float()
    return warp(pixels, angles, shifts, flips)


def warp(pixels: Tensor, angles: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """Rotate (radians), shift (B,2; 2 is the whole side) and flip (-1 or 1) each of (B,3,H,W)."""
    height, width = pixels.shape[-2:]
    cos, sin = angles.cos(), angles.sin()
    rows = (
        torch.stack([flips * cos, -flips * sin * height / width, shifts[:, 0]], dim=1),
        torch.stack([sin * width / height, cos, shifts[:, 1]], dim=1),
    )
    grid = _grid(torch.stack(rows, dim=1), height, width)
    sampled = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.clamp_(0, 1)


def _grid(maps: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel (B,H,W,2) comes from under ``maps`` (B,2,3), as ``F.affine_grid`` has it.

    That is a product of matrices with three columns, which took longer on a CPU than sampling does; this is
    one sum, whose x and y lie apart.
    """
    across, down = (_centers(size, maps) for size in (width, height))
    xs = maps[:, :, 0, None] * across
    ys = maps[:, :, 1, None] * down + maps[:, :, 2, None]
    return (ys[:, :, :, None] + xs[:, :, None, :]).permute(0, 2, 3, 1)


def _centers(count: int, like: Tensor) -> Tensor:
    """The middles of ``count`` pixels that share -1 to 1."""
    numbers = torch.arange(count, device=like.device, dtype=like.dtype)
    return (2 * numbers + 1) / count - 1
