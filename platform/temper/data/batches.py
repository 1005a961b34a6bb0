"""Batches whose order is a function of (seed, epoch) only, the same number on every rank."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from temper.data.decode import Images
from temper.seeds import derive_seed


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 (B,3,S,S), ``labels`` int64 (B,), ``rows`` int64 (B,)."""

    images: Tensor
    labels: Tensor
    rows: Tensor


class Batches(Protocol):
    """A training split in batches."""

    @property
    def num_batches(self) -> int:
        """Batches per epoch, the same on every rank."""
        ...

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of one epoch, those of this rank."""
        ...

    def cycle(self, start: int) -> Iterator[Batch]:
        """Endless batches from number ``start`` on, counted from the first of epoch 0."""
        ...

    def close(self) -> None:
        """Let go of whatever is being read ahead."""


@dataclass(frozen=True)
class Plan:
    """How an epoch is cut into global batches and these into equal shares of the ranks.

    Every image is used once per epoch, but for at most ``world_size - 1`` of them (or a tail of fewer
    than two images per rank, with which BatchNorm cannot work); which ones, changes with the epoch.
    """

    num_rows: int
    batch_size: int
    """Per rank."""
    seed: int
    rank: int = 0
    world_size: int = 1

    def sizes(self) -> list[int]:
        """Images per rank in each batch of an epoch."""
        full, tail = divmod(self.num_rows, self.batch_size * self.world_size)
        share = tail // self.world_size
        sizes = [self.batch_size] * full
        if share >= 2 or (not sizes and share >= 1):
            sizes.append(share)
        assert sizes, f"{self.num_rows} images cannot be shared between {self.world_size} ranks"
        return sizes

    def order(self, epoch: int) -> np.ndarray:
        """Positions (N,) in the order of ``epoch``, for all ranks together."""
        generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
        return generator.permutation(self.num_rows)

    def share(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """The part of each global batch of an epoch's ``order`` that is this rank's."""
        start = 0
        for size in self.sizes():
            yield order[start + self.rank * size : start + (self.rank + 1) * size]
            start += size * self.world_size


class ResidentBatches:
    """Batches out of a decoded split that lies in memory, perhaps shared with other processes."""

    def __init__(
        self, images: Images, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._data = images
        self._plan = Plan(len(images.labels), batch_size, seed, rank, world_size)
        self.num_batches = len(self._plan.sizes())

    def epoch(self, epoch: int) -> Iterator[Batch]:
        return self._batches(epoch, 0)

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        for positions in itertools.islice(self._plan.share(self._plan.order(epoch)), first, None):
            yield Batch(
                torch.from_numpy(self._data.images[positions]),
                torch.from_numpy(self._data.labels[positions]),
                torch.from_numpy(self._data.rows[positions]),
            )

    def cycle(self, start: int) -> Iterator[Batch]:
        # Unlike the general ``cycle``, this reads no image of the batches that it skips.
        epoch, skip = divmod(start, self.num_batches)
        yield from self._batches(epoch, skip)
        for later in itertools.count(epoch + 1):
            yield from self.epoch(later)

    def close(self) -> None:
        """Nothing is read ahead."""


def cycle(batches: Batches, start: int) -> Iterator[Batch]:
    """Batches number ``start``, ``start + 1``, ... of epochs that follow each other for ever."""
    epoch, skip = divmod(start, batches.num_batches)
    while True:
        for number, batch in enumerate(batches.epoch(epoch)):
            if number >= skip:
                yield batch
        epoch, skip = epoch + 1, 0
