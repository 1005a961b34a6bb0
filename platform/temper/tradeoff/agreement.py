"""Does the cheap metric that a sweep searched by rank models as the whole suite does?"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from temper.records import ProxyAgreement

LEAST_MODELS: Final = 4
"""Fewer can be ranked alike by chance: 3 models in one of 6 orders."""
LEAST_KENDALL: Final = 0.4
"""At 0.4 the cheap metric orders 7 of 10 pairs of models as the suite does. (assumption!)"""

ADVICE: Final = (
    "validate with more steps (validation.steps) or more images, and raise the space's finalists so that "
    "more models are evaluated with the suite"
)


def rank_agreement(proxy: Sequence[float], suite: Sequence[float]) -> ProxyAgreement:
    """Rank correlation of two accuracies of the same models, ties handled; 0 where one of them is constant.

    Raises:
        ValueError: different lengths.
    """
    if len(proxy) != len(suite):
        raise ValueError(f"proxy has {len(proxy)} models, suite has {len(suite)}")
    a, b = np.asarray(proxy, dtype=float), np.asarray(suite, dtype=float)
    kendall = _kendall(a, b)
    return ProxyAgreement(
        num_models=len(a),
        kendall=kendall,
        spearman=_correlation(_ranks(a), _ranks(b)),
        warning=_warning(a, b, kendall),
    )


def _warning(a: np.ndarray, b: np.ndarray, kendall: float) -> str | None:
    if len(a) < LEAST_MODELS:
        met = "1 model" if len(a) == 1 else f"{len(a) or 'no'} models"
        return (
            f"{met} evaluated with the suite: too few to judge the cheap metric; raise the space's "
            f"finalists to {LEAST_MODELS} or more"
        )
    for values, name in ((a, "validation metric"), (b, "robust accuracy under the suite")):
        if np.ptp(values) == 0:
            return (
                f"the {name} is the same for all {len(a)} models, so there is no order to compare: {ADVICE}"
            )
    if kendall < LEAST_KENDALL:
        return (
            f"the cheap metric ranks models differently from the suite (Kendall's tau {kendall:.2f}, below "
            f"{LEAST_KENDALL}), so better models may have been stopped or passed over: {ADVICE}"
        )
    return None


def _kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b (1945): concordant less discordant pairs, over the pairs untied in a and in b."""
    above = np.triu_indices(len(a), k=1)
    signs_a, signs_b = (np.sign(values[:, None] - values[None, :])[above] for values in (a, b))
    untied = float(np.abs(signs_a).sum() * np.abs(signs_b).sum())
    return _bounded(float(signs_a @ signs_b) / untied**0.5) if untied else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one of the two does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return _bounded(float(a @ b) / float(a @ a * (b @ b)) ** 0.5)


def _bounded(value: float) -> float:
    """Without the last bit that a division may add beyond 1."""
    return min(1.0, max(-1.0, value))
