"""Queries of attacks without gradients."""

import torch
from torch import Tensor, nn

from temper.evaluation.threats import margins

LARGEST_CHUNK = 4
"""A pass without gradients takes at most so many times the images of the batch (assumption: it needs less
than a quarter of the memory of one with)."""


@torch.no_grad()
def scores(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (B,C) of ``images`` (B,3,H,W)."""
    logits: Tensor = model(images)
    return logits


def is_fooled(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(B,) bool: another class is ahead of the label.

    Not ``argmax``: answers that were not finite come as zeros, and must not look like a way out.
    """
    return margins(scores(model, images), labels) < 0


def per_image(values: Tensor) -> Tensor:
    """(B,) as (B,1,1,1)."""
    return values.view(-1, 1, 1, 1)


def seeded(seed: int, images: Tensor) -> torch.Generator:
    """A generator on the device of ``images``."""
    return torch.Generator(images.device).manual_seed(seed)
