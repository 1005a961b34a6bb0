"""Weather: snow, frost, fog, rain, and a brighter day.

Nothing is photographed: the published set lays pictures of frosted windows over the images; here frost,
like snow and fog, is made from random numbers, so that it needs no files and follows the seed.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from temper.attacks import is_grey
from temper.evaluation.corruptions import filters
from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.fields import plasma, size_of

RAIN_LIGHT = 0.85
"""How light a streak of rain is."""

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue add to how light a pixel is (ITU-R BT.601)."""

FROST_TINT = (0.88, 0.97, 1.0)
"""Ice is slightly blue, on colour images; of luma 0.95."""


def luma(images: Tensor) -> Tensor:
    """(B,1,H,W): how light each pixel is."""
    red, green, blue = (weight * images[:, [index]] for index, weight in enumerate(LUMA))
    return red + green + blue


def brightness(images: Tensor, _draws: Draws, *, added: float) -> Tensor:
    """``added`` to the value of hue, saturation and value; that is one factor for the three channels."""
    value = images.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, images * brighter / value.clamp(min=1e-6), brighter)


def fog(images: Tensor, draws: Draws, *, thickness: float, roughness: float) -> Tensor:
    """Clouds of up to ``thickness`` added, then everything dimmed to the image's former maximum."""
    clouds = plasma(draws, *size_of(images), roughness)[:, None]
    highest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * clouds) * highest / (highest + thickness)


def snow(
    images: Tensor,
    draws: Draws,
    *,
    mean: float,
    std: float,
    flake: float,
    threshold: float,
    radius_px: float,
    sigma_px: float,
    kept: float,
) -> Tensor:
    """Falling flakes over an image that is whitened to the share 1 - ``kept``.

    Flakes are Gaussian noise (``mean``, ``std``) magnified ``flake`` times, cut below ``threshold``, smeared
    along their fall (within 45 degrees of the vertical), and laid over the image twice, once turned by 180.
    """
    height, width = images.shape[-2:]
    small = [math.ceil(side / flake) for side in (height, width)]
    noise = (mean + std * draws.normal(1, *small)).to(images.dtype)
    flakes = F.interpolate(noise, (height, width), mode="bilinear", align_corners=True)
    flakes = torch.where(flakes < threshold, 0, flakes).clamp(0, 1)
    flakes = filters.convolve(
        flakes, filters.motion(radius_px, sigma_px, draws.uniform(1, low=45, high=135)[:, 0])
    )
    white = torch.maximum(images, luma(images) * 1.5 + 0.5)
    return kept * images + (1 - kept) * white + flakes + flakes.flip(2, 3)


def rain(
    images: Tensor, draws: Draws, *, share: float, length_px: float, opacity: float, kept: float
) -> Tensor:
    """Streaks of ``length_px`` at a ``share`` of the pixels, under a sky that keeps ``kept`` of the light.

    A streak is within 20 degrees of the vertical, one angle per image, and fades along its fall. It hides
    ``opacity`` of what is behind it, and is light grey, as drops show the sky (Garg and Nayar 2007).
    """
    drops = (draws.uniform(1, *size_of(images)) < share).to(images.dtype)
    streak = filters.motion(length_px / 2, length_px / 2, draws.uniform(1, low=70, high=110)[:, 0])
    streaks = filters.convolve(drops, streak / streak.amax((1, 2), keepdim=True)).clamp(0, 1)
    return kept * images * (1 - opacity * streaks) + RAIN_LIGHT * opacity * streaks


def frost(images: Tensor, draws: Draws, *, kept: float, ice: float) -> Tensor:
    """``kept`` of the image plus ``ice`` times a made-up frosted window."""
    texture = frosted_window(draws, *size_of(images))[:, None]
    tint = images.new_tensor(FROST_TINT).view(1, 3, 1, 1)
    grey = (tint.new_tensor(LUMA).view(1, 3, 1, 1) * tint).sum()
    tint = torch.where(is_grey(images)[:, None, None, None], grey, tint)
    return kept * images + ice * texture * tint


def frosted_window(draws: Draws, height: int, width: int) -> Tensor:
    """(B,H,W) in [0,1]: ice that thickens in patches, with crystals that grow from random points.

    The arms of a crystal run along three axes, 60 degrees apart, turned at random per image; each is a
    bundle of short needles. Sizes are shares of the image's side: every image size shows the same window.
    """
    side = min(height, width)
    patches = plasma(draws, height, width, roughness=1.6)
    feathers = 1 - (2 * filters.smooth(plasma(draws, height, width, roughness=1.3), side / 150) - 1).abs()
    first = draws.uniform(1, high=60)[:, 0]
    arms = torch.zeros_like(patches)[:, None]
    for axis in range(6):
        seeds = draws.uniform(1, height, width)
        # Seeds of needles are dense where the ice is thick: up to one in each square of a 16th of the side.
        share = (16 / side) ** 2 * patches[:, None] ** 2
        needles = torch.where(seeds < share, draws.uniform(1, height, width), 0)
        streak = filters.motion(side, side / 24, first + 60 * axis)
        arms = arms + filters.convolve(needles, streak / streak.amax((1, 2), keepdim=True))
    # A needle is a pixel wide at every size, so its halo makes up for it on large images.
    crystals = 0.4 * arms[:, 0] + side / 100 * filters.smooth(arms[:, 0], side / 60)
    ice = 0.12 + 0.4 * patches + 0.35 * patches * feathers**3 + 0.45 * crystals.clamp(max=1)
    return ice.clamp(0, 1)
