"""The squares of the Square attack: where each image's lie, and how one takes the L2 budget of another.

Andriushchenko et al. 2020, arXiv:1912.00049, sections 3.3 and 3.4.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

SMALLEST = 1e-12
"""Length below which a window counts as empty."""


@dataclass(frozen=True)
class Proposal:
    """One random change for each of B images."""

    side: int
    corners: Tensor
    """(B,2,2) int64: of the new square and of the one that gives way, row and column."""
    signs: Tensor
    """(B,C,1,1): -1 or 1."""
    is_upright: Tensor
    """(B,1,1,1) bool: how the pattern of L2 lies."""

    def rows(self, rows: Tensor) -> "Proposal":
        """The same for some of the images."""
        return replace(
            self, corners=self.corners[rows], signs=self.signs[rows], is_upright=self.is_upright[rows]
        )

    def mask(self, which: int, images: Tensor) -> Tensor:
        """(B,1,H,W) bool: inside the new square (0), or the one that gives way (1)."""
        tops, lefts = self.corners[:, which].unbind(1)
        rows = _is_within(tops, self.side, images.shape[-2])
        columns = _is_within(lefts, self.side, images.shape[-1])
        return rows[:, None, :, None] & columns[:, None, None, :]


def _is_within(first: Tensor, side: int, size: int) -> Tensor:
    places = torch.arange(size, device=first.device)
    return (places >= first[:, None]) & (places < first[:, None] + side)


def transfer_windows(proposal: Proposal, best: Tensor, images: Tensor, eps: Tensor) -> Tensor:
    """The perturbation of one window vanishes, and its budget goes to another, per channel.

    The new window is its old content plus the pattern, both of unit length, scaled to what the two windows
    and the unused part of the budget allow. The whole is scaled to ``eps`` before it is clipped.
    """
    perturbation = best - images
    new, other = proposal.mask(0, images), proposal.mask(1, images)
    num_channels = images.shape[1]
    unused = (eps.square() - perturbation.square().sum((1, 2, 3), keepdim=True)).clamp_min(0)
    inside = perturbation * (new | other)
    budget = (inside.square().sum((2, 3), keepdim=True) + unused / num_channels).sqrt()
    mixed = _unit(perturbation * new, (2, 3)) + proposal.signs * _placed(proposal, images)
    mixed = _unit(mixed, (2, 3)) * budget
    moved = torch.where(new, mixed, perturbation.masked_fill(other, 0))
    return (images + eps * _unit(moved, (1, 2, 3))).clamp(0, 1)


def _placed(proposal: Proposal, images: Tensor) -> Tensor:
    """(B,1,H,W): the pattern in each image's new square, zero elsewhere."""
    shape = pattern(proposal.side).to(images)
    lying = torch.where(proposal.is_upright, shape, shape.T).flatten(1)
    canvas = torch.zeros_like(images[:, :1])
    # The places of a mask are visited row by row, like those of the pattern.
    return canvas.masked_scatter(proposal.mask(0, images), lying)


def tiles(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """(B,C,H,W) of L2 length 1: about five by five patterns, each with its own sign per channel."""
    height, width = images.shape[-2:]
    side = max(1, min(height, width) // 5)
    rows, columns = height // side, width // side
    signs = torch.empty(len(images), images.shape[1], rows, columns, device=images.device)
    signs = signs.bernoulli_(0.5, generator=generator) * 2 - 1
    is_upright = torch.rand(len(images), 1, rows, columns, 1, 1, device=images.device, generator=generator)
    shape = pattern(side).to(images)
    laid = torch.where(is_upright < 0.5, shape, shape.T) * signs[..., None, None].to(images)
    laid = laid.transpose(-3, -2).flatten(-2).flatten(2, 3)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    canvas = torch.zeros_like(images)
    canvas[:, :, top : top + rows * side, left : left + columns * side] = laid
    return _unit(canvas, (1, 2, 3))


def _unit(vectors: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Scaled to L2 length 1 over ``dims``; zero where there is nothing to scale."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=dims, keepdim=True)
    return vectors / lengths.clamp_min(SMALLEST)


def pattern(side: int) -> Tensor:
    """(side,side) of L2 length 1: two halves of opposite sign, each falling from its centre.

    Around the centre of a half lie rings 1 to n, the last one at its farthest edge; the value on ring m is
    the sum of 1 / k^2 for k from m to n.
    """
    upper = side // 2
    halves = torch.cat([_half(upper, side), -_half(side - upper, side)])
    return halves / halves.square().sum().sqrt()


def _half(height: int, width: int) -> Tensor:
    if height == 0:
        return torch.zeros(0, width)
    rings = max(height // 2, width // 2) + 1
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(rows[:, None], columns[None, :])
    terms = 1 / torch.arange(1, rings + 1).double().square()
    tails = terms.flip(0).cumsum(0).flip(0)
    half = tails[distance].float()
    return half / half.square().sum().sqrt()
