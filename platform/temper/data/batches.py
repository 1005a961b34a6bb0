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

    Without ``labels`` every image is used once per epoch, but for at most ``world_size - 1`` of them (or a
    tail of fewer than two images per rank, with which BatchNorm cannot work); which ones, changes with the
    epoch.
    """

    num_rows: int
    batch_size: int
    """Per rank."""
    seed: int
    rank: int = 0
    world_size: int = 1
    labels: np.ndarray | None = None
    """Of each row, int64 (N,): epochs are then drawn so that every class is met equally often."""

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
        if self.labels is not None:
            return balanced_order(self.labels, generator)
        return generator.permutation(self.num_rows)

    def share(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """The part of each global batch of an epoch's ``order`` that is this rank's."""
        start = 0
        for size in self.sizes():
            yield order[start + self.rank * size : start + (self.rank + 1) * size]
            start += size * self.world_size


def balanced_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Positions (N,) of an epoch in which each class has an equal share, as nearly as N allows.

    The images of a small class come again only after all of them were used; those of a large one wait.
    """
    classes = np.unique(labels)
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[generator.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    drawn = []
    for label, share in zip(classes, shares, strict=True):
        own = np.flatnonzero(labels == label)
        rounds = [generator.permutation(own) for _ in range(-(-int(share) // len(own)))]
        drawn.append(np.concatenate(rounds)[:share] if rounds else own[:0])
    return generator.permutation(np.concatenate(drawn))


class ResidentBatches:
    """Batches out of a decoded split that lies in memory, perhaps shared with other processes."""

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        is_balanced: bool = False,
    ) -> None:
        self._data = images
        labels = images.labels if is_balanced else None
        self._plan = Plan(len(images.labels), batch_size, seed, rank, world_size, labels)
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
