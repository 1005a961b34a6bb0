"""How sure a proportion is, and how much it differs between folds."""

import math

import numpy as np

from temper.records import Proportion
from temper.records.evaluation import Consistency
from temper.seeds import derive_seed

Z_95 = 1.959963984540054


def wilson(count: int, total: int) -> Proportion:
    """``count`` of ``total`` with the Wilson score interval at 95 % (Wilson 1927)."""
    share = count / total
    scale = 1 + Z_95**2 / total
    centre = (share + Z_95**2 / (2 * total)) / scale
    half = Z_95 / scale * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return Proportion(value=share, low=low, high=high, count=count, total=total)


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
