"""Noise: of the sensor (Gaussian), of the photons (shot), of single dead pixels (impulse).

Where an image is grey (three equal channels) its noise is drawn once for all channels, as one sensor
would have it; otherwise each channel has its own.
"""

import torch
from torch import Tensor

from temper.attacks import is_grey
from temper.evaluation.corruptions.draws import Draws

POISSON_TAIL = 8.0
"""Standard deviations beyond which a number of photons is not drawn (less than 1e-14 of a Gaussian)."""


def once_if_grey(drawn: Tensor, images: Tensor) -> Tensor:
    """``drawn`` (B,3,H,W), with the first channel's numbers in all three where the image is grey."""
    return torch.where(is_grey(images)[:, None, None, None], drawn[:, :1], drawn)


def gaussian_noise(images: Tensor, draws: Draws, *, std: float) -> Tensor:
    """``std`` in units of [0,1]."""
    return images + std * once_if_grey(draws.normal(*images.shape[1:]), images)


def shot_noise(images: Tensor, draws: Draws, *, photons: float) -> Tensor:
    """Poisson noise of a sensor that counts ``photons`` where the image is 1.

    By inversion: an image of 8 bits has 256 rates, so one table holds all distribution functions.
    """
    levels = torch.arange(256, dtype=torch.float64, device=images.device)[:, None]
    rates = levels / 255 * photons
    most = int(photons + POISSON_TAIL * photons**0.5 + 10)
    counts = torch.arange(most, dtype=torch.float64, device=images.device)
    log_mass = torch.xlogy(counts, rates) - rates - torch.lgamma(counts + 1)
    below = log_mass.exp().cumsum(1).clamp(max=1 - 1e-9)
    level = (images * 255).round().double()
    # Level by level in one sorted line, so that one search serves all pixels.
    line = (below + levels).flatten()
    drawn = once_if_grey(draws.uniform(*images.shape[1:]), images).double()
    found = torch.searchsorted(line, level + drawn, right=True) - level.long() * most
    return (found.clamp(max=most - 1) / photons).to(images.dtype)


def impulse_noise(images: Tensor, draws: Draws, *, share: float) -> Tensor:
    """A ``share`` (0..1) of the values becomes black or white, half each."""
    drawn = once_if_grey(draws.uniform(*images.shape[1:]), images)
    return torch.where(drawn < share, (drawn < share / 2).to(images.dtype), images)


def rician_noise(images: Tensor, draws: Draws, *, std: float) -> Tensor:
    """The magnitude of a signal with Gaussian noise ``std`` in its real and imaginary part.

    The noise of magnetic resonance images (Gudbjartsson and Patz 1995); it lifts what is dark.
    """
    real, imaginary = (std * once_if_grey(draws.normal(*images.shape[1:]), images) for _ in range(2))
    return torch.hypot(images + real, imaginary)
