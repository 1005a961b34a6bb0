"""How many images go through a model at once.

A gradient needs every activation between the images and the logits, so it is taken portion by portion: memory
then does not grow with the batch. The answer to an image does not depend on the others, so it is the same.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST_PIXELS = 2**19
"""Of a batch that a CPU takes whole where no gradient is wanted, or where what an attack draws depends on the
batch: 128 images at 64 px, 32 at 128 px. They should need no more memory than a training step left behind.
"""
PORTION_PIXELS = 2**18
"""Of a portion on a CPU, where the model does not say how many images it takes at once: 64 images at 64 px,
16 at 128 px. The graph of 16 images of an EfficientNet-Lite0 at 128 px takes 270 MB with BatchNorm folded,
and 400 MB without.
"""


def fitting(images: Tensor, pixels: int) -> int:
    """How many of ``images`` (B,C,H,W) make up at most so many ``pixels``; on a GPU all of them."""
    if images.device.type != "cpu":
        return max(1, len(images))
    return max(1, pixels // math.prod(images.shape[-2:]))


def images_at_once(model: Any, images: Tensor) -> int:
    """How many of ``images`` (B,3,H,W) ``model`` takes at once where a gradient is wanted.

    A model that knows better than ``PORTION_PIXELS`` has a method of this name: a twin, whose activations
    should stay in the caches, or a model whose answers depend on the whole batch.
    """
    own = getattr(model, "images_at_once", None)
    return fitting(images, PORTION_PIXELS) if own is None else int(own(images))


def portions(count: int, size: int) -> list[slice]:
    """``count`` rows in slices of at most ``size``; one, where all fit."""
    return [slice(start, start + size) for start in range(0, count, size)] or [slice(0, 0)]


def cut(images: Tensor) -> list[slice]:
    """The rows of ``images`` (B,C,H,W): all at once up to ``MOST_PIXELS``, beyond them in portions."""
    is_small = len(images) <= fitting(images, MOST_PIXELS)
    return portions(len(images), len(images) or 1 if is_small else fitting(images, PORTION_PIXELS))


def in_portions(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What ``model`` answers to ``images`` (B,3,H,W) where no gradient is wanted; a large batch is cut."""
    parts = cut(images)
    return model(images) if len(parts) == 1 else torch.cat([model(images[rows]) for rows in parts])
