"""Batches out of memory, and what batches are wherever they come from: the same number on every rank."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from temper.data import Images, Part, Plan, stratified_subset


@dataclass(frozen=True)
class Batch:
    """One rank's part of a batch: ``images`` uint8 (B,3,S,S), ``labels`` int64 (B,), ``rows`` int64 (B,)."""

    images: Tensor
    labels: Tensor
    rows: Tensor
    parts: tuple[Part, ...] = ()
    """Its shares of the whole batch, in a row; none: there is nothing but these images."""

    def split(self) -> list["Batch"]:
        """Its shares, one after another."""
        parts = self.parts or (Part(0, len(self.rows), len(self.rows)),)
        ends = [0, *itertools.accumulate(map(len, parts))]
        return [
            Batch(self.images[start:end], self.labels[start:end], self.rows[start:end], (part,))
            for part, (start, end) in zip(parts, itertools.pairwise(ends), strict=True)
        ]


class Batches(Protocol):
    """A training split in batches."""

    @property
    def num_batches(self) -> int:
        """Batches per epoch, the same on every rank."""
        ...

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The shares of this rank in each batch of one epoch, from number ``first`` on."""
        ...

    def cycle(self, start: int) -> Iterator[Batch]:
        """Endless batches from number ``start`` on, counted from the first of epoch 0."""
        ...

    def once(self, limit: int, seed: int) -> Iterator[Batch]:
        """The part of this rank in all images, each of them once, or in ``limit`` of them.

        In these, which follow from ``seed``, every class keeps its share.
        """
        ...

    def close(self) -> None:
        """Let go of whatever is being read ahead."""


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
        num_shares: int | None = None,
        windows: tuple[int, ...] = (),
    ) -> None:
        self._data, self._batch_size = images, batch_size
        self._rank, self._world_size = rank, world_size
        labels = images.labels if is_balanced else None
        count = len(images.labels)
        self._plan = Plan(count, batch_size, seed, rank, world_size, labels, num_shares, windows)
        self.num_batches = len(self._plan.sizes())

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        own = zip(self._plan.share(self._plan.order(epoch)), self._plan.parts(), strict=True)
        for positions, parts in itertools.islice(own, first, None):
            yield self._at(positions, parts)

    def cycle(self, start: int) -> Iterator[Batch]:
        return cycle(self, start)

    def once(self, limit: int, seed: int) -> Iterator[Batch]:
        mine = stratified_subset(self._data.labels, limit, seed)[self._rank :: self._world_size]
        for start in range(0, len(mine), self._batch_size):
            yield self._at(mine[start : start + self._batch_size])

    def _at(self, positions: np.ndarray, parts: tuple[Part, ...] = ()) -> Batch:
        return Batch(
            torch.from_numpy(self._data.images[positions]),
            torch.from_numpy(self._data.labels[positions]),
            torch.from_numpy(self._data.rows[positions]),
            parts,
        )

    def close(self) -> None:
        """Nothing is read ahead."""


def cycle(batches: Batches, start: int) -> Iterator[Batch]:
    """Batches number ``start``, ``start + 1``, ... of epochs that follow each other for ever."""
    epoch, first = divmod(start, batches.num_batches)
    while True:
        yield from batches.epoch(epoch, first)
        epoch, first = epoch + 1, 0
