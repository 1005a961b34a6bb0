"""Digital: low contrast, elastic distortion, large pixels, JPEG."""

import io

import numpy as np
import torch
from torch import Tensor

from temper.evaluation.corruptions import filters
from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.fields import pixel_grid, sample


def contrast(images: Tensor, _draws: Draws, *, kept: float) -> Tensor:
    """Each channel drawn towards its mean; ``kept`` of the distance is left."""
    means = images.double().mean((2, 3), keepdim=True).to(images.dtype)
    return (images - means) * kept + means


def elastic_transform(
    images: Tensor, draws: Draws, *, jitter_px: float, alpha_px: float, sigma_px: float
) -> Tensor:
    """A random affine map, then a smooth random displacement (Simard et al. 2003).

    The affine map moves three points of a square about the middle, each coordinate uniform within plus and
    minus ``jitter_px``. The displacement is uniform noise of plus and minus 1 under a Gaussian of
    ``sigma_px``, times ``alpha_px``.
    """
    height, width = images.shape[-2:]
    x, y = pixel_grid(height, width, images.device)
    waves = filters.smooth(draws.uniform(2, height, width, low=-1, high=1), sigma_px) * alpha_px
    x, y = x + waves[:, 0], y + waves[:, 1]
    third = float(min(height, width) // 3)
    corners = torch.tensor([[third, third], [third, -third], [-third, -third]], dtype=torch.float64)
    # coefficients @ (x, y, 1) maps each corner to its moved place; the corners are the same for all images.
    solve = torch.cat([corners, torch.ones(3, 1, dtype=torch.float64)], dim=1).inverse().to(images.device)
    moved = corners.to(images.device) + draws.uniform(3, 2, low=-jitter_px, high=jitter_px)
    parts = (solve @ moved).to(images.dtype)[..., None, None]
    warped_x = x * parts[:, 0, 0] + y * parts[:, 1, 0] + parts[:, 2, 0]
    warped_y = x * parts[:, 0, 1] + y * parts[:, 1, 1] + parts[:, 2, 1]
    return sample(images, warped_x, warped_y)


def pixelate(images: Tensor, _draws: Draws, *, scale: float) -> Tensor:
    """Shrunk to ``scale`` of its side and enlarged again, both with a box filter, as Pillow's ``BOX``."""
    height, width = images.shape[-2:]
    low, narrow = (max(1, int(side * scale)) for side in (height, width))
    rows = box_matrix(low, height, images.device) @ box_matrix(height, low, images.device)
    columns = box_matrix(narrow, width, images.device) @ box_matrix(width, narrow, images.device)
    return (rows @ images.double() @ columns.T).to(images.dtype)


def box_matrix(size: int, new_size: int, device: torch.device) -> Tensor:
    """(new_size,size) float64: resizing a line with a box filter.

    A new pixel is the mean of the pixels whose middle lies in it; enlarging, of the one it lies in.
    """
    scale = size / new_size
    support = max(scale, 1.0)
    places = torch.arange(size, dtype=torch.float64, device=device)
    centers = (torch.arange(new_size, dtype=torch.float64, device=device)[:, None] + 0.5) * scale
    # Pillow's order of operations, whose rounding decides the pixels that lie exactly on an edge.
    distance = (places - centers + 0.5) * (1 / support)
    first, end = ((centers + side * support + 0.5).floor() for side in (-0.5, 0.5))
    inside = ((distance > -0.5) & (distance <= 0.5) & (places >= first) & (places < end)).double()
    return inside / inside.sum(1, keepdim=True)


def jpeg_compression(images: Tensor, _draws: Draws, *, quality: float) -> Tensor:
    """Written as JPEG of ``quality`` (1..100, rounded) and read again by Pillow, image by image."""
    from PIL import Image

    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    read = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG", quality=round(quality))
        read.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(images.device).to(images.dtype) / 255
