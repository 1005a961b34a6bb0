"""Where a patch lies: squares of a given share of an image's area, and how random ones are drawn.

A patch is an Linf ball of its own: of radius 1 inside the square, where any colour is allowed, and 0
outside. So the mask (B,1,H,W) of 0 and 1 serves as ``eps`` of everything that knows Linf.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from temper.attacks.draws import draw_rows

STRIDES = (0.7548776662466927, 0.5698402909980532)
"""Of a sequence that fills the unit square evenly: 1/g and 1/g^2, with g^3 = g + 1 (Roberts 2018)."""


def patch_side(area: float, height: int, width: int) -> int:
    """Side in pixels of the largest square of at most ``area`` (share 0..1) of an image, and inside it."""
    # A root of float error below a whole number is that number.
    side = math.floor(math.sqrt(area * height * width) + 1e-6)
    return min(side, height, width)


def masks_at(corners: Tensor, side: int, images: Tensor) -> Tensor:
    """(B,1,H,W) of 1 within the square of each image and 0 elsewhere; ``corners`` (B,2) int64: top, left."""
    return rectangles(corners, torch.full_like(corners, side), images).to(images.dtype)


def rectangles(corners: Tensor, extents: Tensor, images: Tensor) -> Tensor:
    """(B,1,H,W) bool: inside the rectangle at ``corners`` (B,2) of ``extents`` (B,2), height and width."""
    insides = []
    for axis, length in enumerate(images.shape[-2:]):
        place = torch.arange(length, device=images.device) - corners[:, [axis]]
        insides.append((place >= 0) & (place < extents[:, [axis]]))
    return (insides[0][:, :, None] & insides[1][:, None, :])[:, None]


def shares_of_places(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """(B,2) uniform in 0..1: where each image's sequence of places begins."""
    return draw_rows(
        lambda count: torch.rand(count, 2, device=images.device, generator=generator), len(images), generator
    )


def corners_of(shares: Tensor, index: int, side: int, images: Tensor) -> Tensor:
    """(B,2) int64: top and left of place number ``index`` of the sequences that begin at ``shares`` (B,2).

    Each place alone is uniform over all places of the square; together they spread evenly, so that few are
    near each other.
    """
    places = torch.tensor([extent - side + 1 for extent in images.shape[-2:]], device=images.device)
    moved = (shares + index * shares.new_tensor(STRIDES)) % 1
    return (moved * places).long().clamp_max(places - 1)


def promising_corners(gains: Tensor, side: int, count: int) -> Tensor:
    """(count,B,2) int64: top and left of the squares with the largest sums of ``gains`` (B,H,W), best first.

    After each choice its neighbours, up to half a side away, are passed over, as long as others are left.
    """
    sums = F.avg_pool2d(gains[:, None], side, stride=1)[:, 0]
    width = sums.shape[2]
    left = sums.clone()
    found = []
    for _ in range(count):
        is_used_up = left.flatten(1).amax(1).isinf()
        left = torch.where(is_used_up.view(-1, 1, 1), sums, left)
        place = left.flatten(1).argmax(1)
        corners = torch.stack([place // width, place % width], 1)
        found.append(corners)
        near = [
            (torch.arange(extent, device=gains.device) - corners[:, [axis]]).abs() <= side // 2
            for axis, extent in enumerate(sums.shape[1:])
        ]
        left = left.masked_fill(near[0][:, :, None] & near[1][:, None, :], -torch.inf)
    return torch.stack(found)
