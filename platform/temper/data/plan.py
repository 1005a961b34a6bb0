"""The order of an epoch, a function of (seed, epoch) only, and how it is cut.

A batch is that of the whole run. It is cut into *shares*, as many as there may be workers, and each of
``world_size`` workers takes every ``world_size``-th of them: the batches of an epoch are the same for any
number of shares and of workers.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from temper.seeds import derive_seed

MIN_SHARE = 2
"""Images of a share, with fewer of which BatchNorm cannot work."""


@dataclass(frozen=True)
class Part:
    """A share of a batch of ``size`` images: those from ``start`` to ``end``, perhaps none."""

    start: int
    end: int
    size: int
    num_shares: int = 1
    """Of the batch."""

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def weight(self) -> float:
        """Its images as a multiple of what a share has on average."""
        return self.num_shares * len(self) / self.size


def parts_of(size: int, num_shares: int) -> list[Part]:
    """The shares of a batch of ``size``, one after another: as equal as can be, none of a single image.

    The last of them are empty where there are too few images.
    """
    filled = num_filled(size, num_shares)
    ends = [size * min(share, filled) // filled for share in range(num_shares + 1)]
    return [Part(start, end, size, num_shares) for start, end in itertools.pairwise(ends)]


def num_filled(size: int, num_shares: int) -> int:
    """How many shares of a batch of ``size`` have images."""
    return max(1, min(num_shares, size // MIN_SHARE))


@dataclass(frozen=True)
class Plan:
    """How an epoch is cut into batches, and these into shares.

    Without ``labels`` every image is used once per epoch, but for a last one that would be a batch of its
    own, with which BatchNorm cannot work; which one, changes with the epoch.
    """

    num_rows: int
    batch_size: int
    """Of the whole run."""
    seed: int
    rank: int = 0
    world_size: int = 1
    labels: np.ndarray | None = None
    """Of each row, int64 (N,): epochs are then drawn so that every class is met equally often."""
    shares: int | None = None
    """Of each batch; ``None``: one for each rank."""
    windows: tuple[int, ...] = ()
    """Rows in each window of neighbours, which are read one after the other; none: all are one window."""

    @property
    def num_shares(self) -> int:
        return self.shares or self.world_size

    @property
    def own(self) -> range:
        """The shares of this rank."""
        return range(self.rank, self.num_shares, self.world_size)

    def sizes(self) -> list[int]:
        """Images in each batch of an epoch, of all ranks together."""
        full, tail = divmod(self.num_rows, self.batch_size)
        sizes = [self.batch_size] * full
        if tail >= MIN_SHARE or (not sizes and tail):
            sizes.append(tail)
        assert sizes, "no images, no batches"
        return sizes

    def parts(self) -> list[tuple[Part, ...]]:
        """The shares of this rank in each batch of an epoch."""
        by_size = {size: parts_of(size, self.num_shares) for size in set(self.sizes())}
        return [tuple(by_size[size][share] for share in self.own) for size in self.sizes()]

    def order(self, epoch: int) -> np.ndarray:
        """Positions (N,) in the order of ``epoch``, for all ranks together."""
        generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
        if self.labels is not None:
            return balanced_order(self.labels, generator)
        if len(self.windows) <= 1:
            return generator.permutation(self.num_rows)
        starts = np.cumsum((0, *self.windows))
        order = self.window_order(epoch).tolist()
        return np.concatenate([starts[window] + self.order_within(epoch, window) for window in order])

    def window_order(self, epoch: int) -> np.ndarray:
        """Windows in the order of ``epoch``."""
        generator = np.random.default_rng(derive_seed(self.seed, "windows", epoch))
        return generator.permutation(len(self.windows))

    def order_within(self, epoch: int, window: int) -> np.ndarray:
        """Positions within ``window`` in the order of ``epoch``, of more windows than one."""
        generator = np.random.default_rng(derive_seed(self.seed, "rows", epoch, window))
        return generator.permutation(self.windows[window])

    def share(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """What of each batch of an epoch's ``order`` is this rank's: its shares in a row."""
        start = 0
        for parts in self.parts():
            yield np.concatenate([order[start + part.start : start + part.end] for part in parts])
            start += parts[0].size


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
