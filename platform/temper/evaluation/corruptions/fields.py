"""Random fields and the warping of images: (B,H,W) float32 each, one field per image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from temper.evaluation.corruptions.draws import Draws


def plasma(draws: Draws, height: int, width: int, roughness: float) -> Tensor:
    """(B,H,W) in [0,1]: clouds by midpoint displacement on a torus (diamond-square; Fournier et al. 1982).

    The random part shrinks by ``roughness`` squared from one scale to the next, as in the published fog:
    larger means smoother.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    field = draws.uniform(1, 1) * 0
    amplitude = 1.0
    while field.shape[-1] < side:
        field = _refine(field, draws, amplitude)
        amplitude /= roughness**2
    field = field[:, :height, :width]
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return (field - low) / (high - low).clamp(min=1e-12)


def _refine(field: Tensor, draws: Draws, amplitude: float) -> Tensor:
    """Twice as many points: squares get the mean of their corners, diamonds that of theirs, plus noise."""
    batch, side = len(field), field.shape[-1]

    def wobble() -> Tensor:
        return draws.uniform(side, side, low=-amplitude, high=amplitude)

    right, below = field.roll(-1, 2), field.roll(-1, 1)
    center = (field + right + below + right.roll(-1, 1)) / 4 + wobble()
    across = (field + right + center + center.roll(1, 1)) / 4 + wobble()
    down = (field + below + center + center.roll(1, 2)) / 4 + wobble()
    finer = field.new_empty(batch, 2 * side, 2 * side)
    finer[:, ::2, ::2], finer[:, 1::2, 1::2] = field, center
    finer[:, ::2, 1::2], finer[:, 1::2, ::2] = across, down
    return finer


def size_of(images: Tensor) -> tuple[int, int]:
    """Height and width."""
    return images.shape[-2], images.shape[-1]


def pixel_grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The coordinates x (1,1,W) and y (1,H,1), in pixels from the middle of the image."""
    x = torch.arange(width, dtype=torch.float32, device=device) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32, device=device) - (height - 1) / 2
    return x[None, None, :], y[None, :, None]


def sample(images: Tensor, x: Tensor, y: Tensor, padding: str = "reflection") -> Tensor:
    """Images (B,C,H,W) read, bilinearly, at ``x`` and ``y`` (B or 1,H,W), in pixels from the middle."""
    height, width = images.shape[-2:]
    x, y = 2 * x / width, 2 * y / height
    grid = torch.stack([x + 0 * y, y + 0 * x], dim=-1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
