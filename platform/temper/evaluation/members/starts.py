"""Where attacks that need only decisions start: at images that are not the label any more.

Foolbox's own starting attacks give up on a whole batch when one of its images has no start.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from temper.evaluation.members.queries import is_fooled, per_image, scores

Noise = Literal["blended", "salt"]
"""Uniform noise mixed into the image, or black and white pixels."""

STRENGTHS = 10
"""Noise is tried in so many strengths, weak ones first."""


def adversarial_starts(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    noises: tuple[Noise, ...] = ("blended", "salt"),
    draws: int = 5,
) -> tuple[Tensor, Tensor]:
    """Images (B,3,H,W) in [0,1] that ``model`` does not take for ``labels``; and where one was found (B,).

    Noise of rising strength first, then plain colours, and, as a last resort, the nearest image of the
    batch that is taken for another class. Where nothing is found the image itself is returned.
    """
    starts = images.clone()
    found = torch.zeros_like(labels, dtype=torch.bool)
    for candidates in _candidates(images, generator, noises, draws):
        left = (~found).nonzero().flatten()
        if not len(left):
            return starts, found
        fooled = is_fooled(model, candidates[left], labels[left])
        starts[left[fooled]] = candidates[left[fooled]]
        found[left[fooled]] = True
    return _from_the_batch(model, images, labels, starts, found)


def _candidates(
    images: Tensor, generator: torch.Generator, noises: tuple[Noise, ...], draws: int
) -> Iterator[Tensor]:
    for step in range(1, STRENGTHS + 1):
        for _ in range(draws):
            for noise in noises:
                yield _noisy(images, noise, step / STRENGTHS, generator)
    num_channels = images.shape[1]
    for colour in range(2**num_channels):
        bits = [colour >> shift & 1 for shift in reversed(range(num_channels))]
        yield images.new_tensor(bits).view(1, -1, 1, 1).expand_as(images)
    yield torch.full_like(images, 0.5)


def _noisy(images: Tensor, noise: Noise, strength: float, generator: torch.Generator) -> Tensor:
    if noise == "blended":
        uniform = torch.empty_like(images).uniform_(generator=generator)
        return torch.lerp(images, uniform, strength)
    draw = torch.empty_like(images[:, :1]).uniform_(generator=generator)
    salted = torch.where(draw < strength / 2, torch.zeros_like(images), images)
    return torch.where(draw > 1 - strength / 2, torch.ones_like(images), salted)


def _from_the_batch(
    model: nn.Module, images: Tensor, labels: Tensor, starts: Tensor, found: Tensor
) -> tuple[Tensor, Tensor]:
    if found.all():
        return starts, found
    other = scores(model, images).argmax(1)[None, :] != labels[:, None]
    distances = torch.cdist(images.flatten(1), images.flatten(1)).masked_fill(~other, torch.inf)
    nearest = distances.argmin(1)
    usable = ~found & other.any(1)
    return torch.where(per_image(usable), images[nearest], starts), found | usable
