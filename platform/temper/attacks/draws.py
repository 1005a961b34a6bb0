"""Random numbers of a batch that several processes share: those of an image are the same wherever it is."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor


class PartGenerator(torch.Generator):
    """Draws for ``parts`` (start, end) of a batch of ``size`` images, of which the others lie elsewhere.

    Whoever draws through ``draw_rows`` then draws for the whole batch and keeps the rows of these images.
    """

    def __new__(cls, device: torch.device | str, parts: Sequence[tuple[int, int]], size: int) -> Self:
        return super().__new__(cls, device)  # type: ignore[call-arg]  # its stub has no __new__

    def __init__(self, device: torch.device | str, parts: Sequence[tuple[int, int]], size: int) -> None:
        super().__init__()
        self.parts, self.size = parts, size


def draw_rows(draw: Callable[[int], Tensor], count: int, generator: torch.Generator | None) -> Tensor:
    """What ``draw``, given a number of images, draws from ``generator`` for ``count`` images (B,...)."""
    if not isinstance(generator, PartGenerator):
        return draw(count)
    whole = draw(generator.size)
    rows = torch.cat([whole[start:end] for start, end in generator.parts])
    assert count == len(rows), "other images than the generator is for"
    return rows


def draw_like(fill: Callable[[Tensor], Tensor], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """What ``fill`` writes into a tensor like ``images`` (B,...), drawing from ``generator``."""

    def draw(count: int) -> Tensor:
        if count == len(images):
            return fill(torch.empty_like(images))
        return fill(images.new_empty(count, *images.shape[1:]))

    return draw_rows(draw, len(images), generator)
