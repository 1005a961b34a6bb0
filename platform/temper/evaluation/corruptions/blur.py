"""Blur: of the lens (defocus), of frosted glass, of a moving or zooming camera. Lengths in pixels."""

import math

import torch
from torch import Tensor

from temper.evaluation.corruptions import filters
from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.fields import pixel_grid, sample, size_of


def defocus_blur(images: Tensor, _draws: Draws, *, radius_px: float, softness_px: float) -> Tensor:
    """A disk of confusion with a soft edge."""
    return filters.convolve(images, filters.disk(radius_px, softness_px, images.device))


def glass_blur(images: Tensor, draws: Draws, *, sigma_px: float, reach_px: float, rounds: float) -> Tensor:
    """Gaussian blur, pixels swapped with neighbours at most ``reach_px`` away, Gaussian blur again.

    ``reach_px`` and ``rounds`` are rounded to whole numbers of at least 1.
    """
    reach = max(1, math.floor(reach_px + 0.5))
    blurred = filters.smooth(images, sigma_px)
    order = shuffled_positions(draws, *size_of(images), reach, max(1, math.floor(rounds + 0.5)))
    order = order[:, None].expand(-1, images.shape[1], -1)
    return filters.smooth(blurred.flatten(2).gather(2, order).view_as(images), sigma_px)


def shuffled_positions(draws: Draws, height: int, width: int, reach: int, rounds: int) -> Tensor:
    """(B,H*W) int64: where each pixel comes from when every pixel was swapped once per round.

    A jump is uniform in -``reach``..``reach`` - 1, as published. There one pixel swaps after the other;
    pixels 2 ``reach`` apart cannot meet, so here they swap at the same time: (2 ``reach``)^2 steps per round
    instead of H * W, each for the whole batch.
    """
    period = 2 * reach
    device = draws.device
    positions = torch.arange(height * width, device=device).repeat(len(draws), 1)
    y, x = (torch.arange(reach, side - reach, device=device) for side in (height, width))
    for phase in range(rounds * period**2):
        row, column = divmod(phase % period**2, period)
        here = (y[row::period, None] * width + x[column::period]).flatten()
        jumps = draws.integers(2, len(here), low=-reach, high=reach - 1)
        there = here + jumps[:, 0] * width + jumps[:, 1]
        here = here.expand_as(there)
        mine, theirs = positions.gather(1, here), positions.gather(1, there)
        positions = positions.scatter(1, here, theirs).scatter(1, there, mine)
    return positions


def motion_blur(images: Tensor, draws: Draws, *, radius_px: float, sigma_px: float) -> Tensor:
    """A streak within 45 degrees of the horizontal."""
    degrees = draws.uniform(1, low=-45, high=45)[:, 0]
    return filters.convolve(images, filters.motion(radius_px, sigma_px, degrees))


def zoom_blur(images: Tensor, _draws: Draws, *, largest: float, num_zooms: float) -> Tensor:
    """The mean of the image and of it under ``num_zooms`` (rounded) zooms from 1 to ``largest``."""
    x, y = pixel_grid(*size_of(images), images.device)
    zooms = torch.linspace(1, largest, max(2, round(num_zooms))).tolist()
    total = images.clone()
    for zoom in zooms:
        total += sample(images, x / zoom, y / zoom, padding="border")
    return total / (len(zooms) + 1)
