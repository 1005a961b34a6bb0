"""A mean over few trainings and its interval, and how far numbers differ between folds of test images."""

import math
from collections.abc import Sequence

import numpy as np

from temper.records import Interval
from temper.records.evaluation import Consistency
from temper.seeds import derive_seed


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval at 95 % for the mean of two or more ``values``."""
    from scipy.special import stdtrit  # a command that has no use for it starts faster

    count = len(values)
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count)
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


def fold_spread(
    correct: np.ndarray, robust: np.ndarray, labels: np.ndarray, seed: int, num_folds: int = 5
) -> Consistency | None:
    """Mean and sample standard deviation of clean and robust accuracy over stratified folds.

    ``correct``, ``robust`` (N,) bool, ``labels`` (N,). The folds are of test images, for one trained
    model: they show how far its numbers depend on which images it meets. ``None`` under two images a fold.
    """
    if len(labels) < 2 * num_folds:
        return None
    shuffled = np.random.default_rng(derive_seed(seed, "folds")).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = [by_class[start::num_folds] for start in range(num_folds)]
    clean = [float(correct[fold].mean()) for fold in folds]
    hard = [float(robust[fold].mean()) for fold in folds]
    return Consistency(
        num_folds=num_folds,
        clean_acc_mean=float(np.mean(clean)),
        clean_acc_std=float(np.std(clean, ddof=1)),
        robust_acc_mean=float(np.mean(hard)),
        robust_acc_std=float(np.std(hard, ddof=1)),
    )
