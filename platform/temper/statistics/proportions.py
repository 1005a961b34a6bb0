"""One proportion and its interval."""

import math

import numpy as np

from temper.records import Drop, Proportion

Z_95 = 1.959963984540054
TIED = 1 + 1e-7
"""Tables of probabilities this close are equally likely, whatever rounding made of them."""


def wilson(count: int, total: int) -> Proportion:
    """``count`` of ``total`` with the Wilson score interval at 95 % (Wilson 1927)."""
    share = count / total
    scale = 1 + Z_95**2 / total
    centre = (share + Z_95**2 / (2 * total)) / scale
    half = Z_95 / scale * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return Proportion(value=share, low=low, high=high, count=count, total=total)


def drop_between(main: Proportion, other: Proportion) -> Drop:
    """``main`` minus ``other``, of different images, with the score interval (Newcombe 1998, method 10).

    It joins the Wilson intervals of both by their distances from the proportions (Statistics in Medicine 17,
    873-890).
    """
    value = main.value - other.value
    down = math.hypot(main.value - main.low, other.high - other.value)
    up = math.hypot(main.high - main.value, other.value - other.low)
    return Drop(value=value, low=max(-1.0, value - down), high=min(1.0, value + up))


def fisher_exact(one: Proportion, other: Proportion, *, is_greater: bool = False) -> float:
    """Two-sided p-value that two independent proportions are the same (Fisher 1935).

    The sum of the probabilities of all tables with the same margins that are at most as likely as this one;
    where ``one`` was expected to be the greater, of those in which it is as great as here or greater.
    """
    total, successes = one.total + other.total, one.count + other.count
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    counts = np.arange(max(0, successes - other.total), min(successes, one.total) + 1)
    inside = factorials[counts] + factorials[one.total - counts]
    outside = factorials[successes - counts] + factorials[other.total - successes + counts]
    chances = np.exp(-(inside + outside) + (inside + outside).min())  # of the likeliest: 1
    place = one.count - counts[0]
    is_tail = counts >= one.count if is_greater else chances <= chances[place] * TIED
    return float(min(1.0, chances[is_tail].sum() / chances.sum()))
