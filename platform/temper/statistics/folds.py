"""How much a model's numbers differ between folds of the test images."""

import numpy as np

from temper.records.evaluation import Consistency
from temper.seeds import derive_seed


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
