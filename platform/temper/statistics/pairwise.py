"""Many models against each other at once: p-values of every pair, and ranks that do not outrun them."""

import math

import numpy as np

from temper.statistics.paired import fair_binomial


def pairwise_mid_p(answers: np.ndarray) -> np.ndarray:
    """McNemar's mid-p (see ``mcnemar``) of every pair: (M,M) from ``answers`` (M,N) bool, right or wrong.

    Row m holds the answers of model m to the same N images.
    """
    right = answers.astype(np.float32)  # whole numbers up to 2^24 are exact
    both = right @ right.T
    only = (np.diag(both)[:, None] - both).astype(np.int64)
    discordant, larger = only + only.T, np.maximum(only, only.T)
    p = np.ones(only.shape)
    for total in np.unique(discordant[discordant > 0]).tolist():
        here = discordant == total
        heads = larger[here]
        points = fair_binomial(total)
        tails = np.cumsum(points[::-1])[::-1]
        mid = np.where(2 * heads == total, 1 - points[heads] / 2, 2 * tails[heads] - points[heads])
        p[here] = np.clip(mid, 0, 1)
    return p


def pairwise_unpaired_p(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Two-sided p-values (M,M) that two of M proportions ``counts / totals`` (M,) are alike.

    The score test with the pooled proportion (Pearson 1900), for models whose answers to single images are
    not at hand. It does not know that the images were the same, so it sees less than a paired test.
    """
    shares = counts / totals
    pooled = (counts[:, None] + counts) / (totals[:, None] + totals)
    variance = pooled * (1 - pooled) * (1 / totals[:, None] + 1 / totals)
    certain = variance <= 0  # all right, or all wrong: no difference either
    z = np.abs(shares[:, None] - shares) / np.sqrt(np.where(certain, 1, variance))
    p = np.vectorize(math.erfc, otypes=[float])(z / math.sqrt(2))
    return np.where(certain, 1.0, p)


def shared_ranks(p: np.ndarray, level: float = 0.05) -> list[int]:
    """Ranks of M models in the order of their scores, best first, from p-values (M,M) of their pairs.

    A model's rank is 1 + how many ahead are significantly better, where its tests against all of them
    are corrected together (Holm 1979). It is never better than the rank of a model ahead.
    """
    ranks: list[int] = []
    for place in range(len(p)):
        ahead = np.sort(p[:place, place])
        adjusted = np.maximum.accumulate((place - np.arange(place)) * ahead) if place else ahead
        rank = 1 + int((adjusted < level).sum())
        ranks.append(max(rank, ranks[-1]) if ranks else rank)
    return ranks
