"""Grey images: three equal channels that an attack changes alike.

Such an attack runs on one channel (B,1,H,W), so starts, steps, norms and projections are those of the grey
image, and its answer has the same value in each of the three.
"""

import torch
from torch import Tensor

from temper.attacks.base import Attack, LogitsFn
from temper.attacks.portions import images_at_once
from temper.spec import Channels


def is_grey(images: Tensor) -> Tensor:
    """(B,) bool: whether the channels of (B,C,H,W) are equal."""
    return (images == images[:, :1]).flatten(1).all(1)


def in_colour(images: Tensor) -> Tensor:
    """(B,3,H,W): of one channel (B,1,H,W), its values in all three; others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def attacked_channels(images: Tensor, channels: Channels) -> Tensor:
    """What of (B,3,H,W) an attack changes: one channel of grey images, or all of them."""
    return images[:, :1] if channels == "grey" else images


class GreyLogits:
    """The logits of a model for images (B,1,H,W)."""

    def __init__(self, logits_fn: LogitsFn) -> None:
        self._logits_fn = logits_fn

    def __call__(self, images: Tensor) -> Tensor:
        return self._logits_fn(in_colour(images))

    def images_at_once(self, images: Tensor) -> int:
        """How many of ``images`` an attack sends through at once."""
        return images_at_once(self._logits_fn, images)


def perturb_channels(
    attack: Attack,
    logits_fn: LogitsFn,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator | None,
    channels: Channels,
) -> Tensor:
    """What ``attack`` makes of ``images`` (B,3,H,W); where they are ``grey``, the same in each channel."""
    if channels == "colour":
        return attack.perturb(logits_fn, images, labels, generator)
    grey = attacked_channels(images, channels)
    return in_colour(attack.perturb(GreyLogits(logits_fn), grey, labels, generator))
