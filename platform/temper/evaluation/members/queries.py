"""What attacks without gradients ask of a model."""

import torch
from torch import Tensor, nn

LARGEST_CHUNK = 4
"""A pass without gradients takes at most so many times the images of the batch (assumption: it needs less
than a quarter of the memory of one with)."""


@torch.no_grad()
def scores(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (B,C) of ``images`` (B,3,H,W)."""
    logits: Tensor = model(images)
    return logits


def is_fooled(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(B,) bool: the prediction is not the label."""
    return scores(model, images).argmax(1) != labels


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) logit of the label minus the best other one; negative where the model is fooled."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    return true - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def per_image(values: Tensor) -> Tensor:
    """(B,) as (B,1,1,1)."""
    return values.view(-1, 1, 1, 1)


def seeded(seed: int, images: Tensor) -> torch.Generator:
    """A generator on the device of ``images``."""
    return torch.Generator(images.device).manual_seed(seed)
