"""The order of an epoch, a function of (seed, epoch) only, and how it is cut.

A global batch is cut into *shares*, as many as there may be workers. Each of ``world_size`` workers takes
every ``world_size``-th of them, so the batches of an epoch stay the same when workers come and go.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from temper.seeds import derive_seed


@dataclass(frozen=True)
class Plan:
    """How an epoch is cut into global batches and these into equal shares.

    Without ``labels`` every image is used once per epoch, but for at most ``num_shares - 1`` of them (or a
    tail of fewer than two images per share, with which BatchNorm cannot work); which ones, changes with the
    epoch.
    """

    num_rows: int
    batch_size: int
    """Per share."""
    seed: int
    rank: int = 0
    world_size: int = 1
    labels: np.ndarray | None = None
    """Of each row, int64 (N,): epochs are then drawn so that every class is met equally often."""
    shares: int | None = None
    """Of a global batch; ``None``: one for each rank."""

    @property
    def num_shares(self) -> int:
        return self.shares or self.world_size

    @property
    def own(self) -> range:
        """The shares of this rank."""
        return range(self.rank, self.num_shares, self.world_size)

    def sizes(self) -> list[int]:
        """Images per share in each batch of an epoch."""
        full, tail = divmod(self.num_rows, self.batch_size * self.num_shares)
        share = tail // self.num_shares
        sizes = [self.batch_size] * full
        if share >= 2 or (not sizes and share >= 1):
            sizes.append(share)
        assert sizes, f"{self.num_rows} images cannot be cut into {self.num_shares} shares"
        return sizes

    def order(self, epoch: int) -> np.ndarray:
        """Positions (N,) in the order of ``epoch``, for all ranks together."""
        generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
        if self.labels is not None:
            return balanced_order(self.labels, generator)
        return generator.permutation(self.num_rows)

    def share(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """The part of each global batch of an epoch's ``order`` that is this rank's: its shares in a row."""
        start = 0
        for size in self.sizes():
            shares = order[start : start + size * self.num_shares].reshape(self.num_shares, size)
            yield shares[self.rank :: self.world_size].reshape(-1)
            start += size * self.num_shares


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
