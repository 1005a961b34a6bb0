"""A mean over few trainings and its interval."""

import math
from collections.abc import Sequence

from temper.records import Interval


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval at 95 % for the mean of two or more ``values``."""
    count = len(values)
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = student_t_quantile(count - 1) * math.sqrt(variance / count)
    return Interval(low=mean - half, high=mean + half)


def corrected_interval(values: Sequence[float], test_to_train: float) -> Interval:
    """Student's interval at 95 % for the mean over two or more folds, one of ``values`` each, within 0..1.

    ``test_to_train`` is n_test / n_train of a fold. Folds share most of their training images, so their
    values are not independent, and variance/k underestimates the variance of their mean. Nadeau and Bengio
    (2003, Machine Learning 52) take the correlation of two folds to be n_test / (n_test + n_train), which
    puts the factor 1/k + n_test/n_train in the place of 1/k.
    """
    mean = sum(values) / len(values)
    independent = t_interval(values)
    half = (independent.high - independent.low) / 2 * math.sqrt(1 + len(values) * test_to_train)
    return Interval(low=max(0.0, mean - half), high=min(1.0, mean + half))


def student_t_quantile(dof: int, level: float = 0.95) -> float:
    """The t that a share ``level`` of Student's distribution stays below in size; ``dof`` whole, >= 1."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_share(middle, dof) < level else (low, middle)
    return math.sqrt(dof) * math.tan((low + high) / 2)


def _central_share(theta: float, dof: int) -> float:
    """P(|T| < sqrt(dof) tan(theta)), Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    cosine = math.cos(theta)
    is_odd = dof % 2 == 1
    term, total = (cosine if is_odd else 1.0), 0.0
    for index in range(1, dof // 2 + 1):
        total += term
        factor = 2 * index / (2 * index + 1) if is_odd else (2 * index - 1) / (2 * index)
        term *= factor * cosine**2
    series = math.sin(theta) * total
    return 2 / math.pi * (theta + series) if is_odd else series
