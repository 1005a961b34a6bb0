"""Two models on the same images: McNemar's test, the difference's interval, Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from temper.records import Interval
from temper.spec import Spec
from temper.statistics.proportions import wilson

NUM_RESAMPLES: Final = 10_000


class Cells(Spec):
    """How many images were right with both models, with one of them only, and with neither."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def total(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def acc_a(self) -> float:
        return (self.both + self.only_a) / self.total

    @property
    def acc_b(self) -> float:
        return (self.both + self.only_b) / self.total

    @property
    def difference(self) -> float:
        """The accuracy of A minus that of B, -1..1."""
        return (self.only_a - self.only_b) / self.total


def count_cells(a: np.ndarray, b: np.ndarray) -> Cells:
    """The four counts from ``a`` and ``b``, (N,) bool over the same images: was the model right?"""
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum())
    return Cells(both=both, only_a=only_a, only_b=only_b, neither=len(a) - both - only_a - only_b)


@dataclass(frozen=True)
class PValues:
    """Two-sided p-values of one test."""

    exact: float
    """Never below the stated level, but conservative."""
    mid: float
    """The observed outcome counts half: the recommended one (Fagerland et al. 2013)."""


def mcnemar(only_a: int, only_b: int) -> PValues:
    """McNemar's test (McNemar 1947) on the discordant images, exact binomial, with its mid-p.

    Fagerland, Lydersen and Laake 2013 (doi:10.1186/1471-2288-13-91) found the mid-p's error of the first
    kind within its level in all of 9595 cases, and the exact test to lose power.
    """
    return sign_flip_test(np.repeat([1, -1], [only_a, only_b]))


def sign_flip_test(differences: np.ndarray) -> PValues:
    """Whether whole-number ``differences`` (N,) between A and B, one for each image, favour one of them.

    Where the models are alike, each image might as well have had the other sign. The distribution of the
    sum over all 2^N signs is computed exactly, as a convolution of binomials, one for each size of
    difference. Differences of -1, 0 and 1 make it McNemar's test; sums over several seeds keep the images,
    not the image-seed pairs, as what varies.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if len(sizes) == 0:
        return PValues(exact=1.0, mid=1.0)  # the mid-p's formula says 0.5, of nothing observed
    distribution = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spaced = np.zeros(2 * size * count + 1)
        spaced[:: 2 * size] = fair_binomial(count)
        distribution = np.convolve(distribution, spaced)
    centre, observed = len(distribution) // 2, abs(int(differences.sum()))
    point = float(distribution[centre + observed])
    tail = float(distribution[centre + observed :].sum())
    exact = min(1.0, 2 * tail)
    mid = 1 - point / 2 if observed == 0 else 2 * tail - point
    return PValues(exact=exact, mid=min(1.0, max(0.0, mid)))


def fair_binomial(count: int) -> np.ndarray:
    """Probabilities (count + 1,) of 0..count heads."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    logs = log_factorials[-1] - log_factorials - log_factorials[::-1] - count * math.log(2)
    return np.asarray(np.exp(logs))


def newcombe(cells: Cells) -> Interval:
    """The score interval of a paired difference of proportions (Newcombe 1998, method 10).

    It joins the Wilson intervals of both accuracies by their correlation, and keeps a width where no image
    tells the models apart.
    """
    total = cells.total
    a, b = wilson(cells.both + cells.only_a, total), wilson(cells.both + cells.only_b, total)
    phi = _correlation(cells)
    below_a, above_a, below_b, above_b = a.value - a.low, a.high - a.value, b.value - b.low, b.high - b.value
    down = below_a**2 - 2 * phi * below_a * above_b + above_b**2
    up = below_b**2 - 2 * phi * below_b * above_a + above_a**2
    return Interval(
        low=max(-1.0, cells.difference - math.sqrt(max(0.0, down))),
        high=min(1.0, cells.difference + math.sqrt(max(0.0, up))),
    )


def _correlation(cells: Cells) -> float:
    """Phi of the 2 x 2 table; a positive one is corrected for continuity, as Newcombe's method 10 asks."""
    right_a, right_b = cells.both + cells.only_a, cells.both + cells.only_b
    margins = right_a * (cells.total - right_a) * right_b * (cells.total - right_b)
    if margins == 0:
        return 0.0
    covariance = float(cells.both * cells.neither - cells.only_a * cells.only_b)
    if covariance > 0:
        covariance = max(0.0, covariance - cells.total / 2)
    return covariance / math.sqrt(margins)


def bootstrap_difference(
    differences: np.ndarray, times: np.ndarray | None = None, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """The percentile interval of the mean difference from resampled images (Efron 1979).

    ``differences`` (N,) whole numbers, A's right answers minus B's on each image; ``times`` (N,) says how
    many answers each model gave there (default 1, more with several seeds). An image is drawn with all its
    answers. Images that look alike share a cell, so a resample is one multinomial draw over few cells.
    """
    times = np.ones_like(differences) if times is None else times
    kinds, counts = np.unique(np.stack([differences, times], axis=1), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(differences), counts / len(differences), size=num_resamples)
    means = (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(low=float(low), high=float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm 1979), in their order: the error of the whole family."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
