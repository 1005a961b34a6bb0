"""The exact linear head: regularised logistic regression on features of a frozen body."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0, 10.0)
"""What C may be, the strongest regularisation first."""
UNCHOSEN = 1e-2
"""C where there is no validation image to choose it by."""
SMALLEST_SCALE = 0.1
"""Times the median deviation of all features: what hardly ever changes is not blown up to be seen."""
NEVER = -20.0
"""Bias of a class without a training image; those of the others have the mean 0."""
GRID_TOLERANCE, GRID_STEPS = 1e-5, 500
"""Of the fits that only choose C: largest component of the gradient, per image."""
TOLERANCE, STEPS = 1e-6, 10_000
"""Of the fit that is kept."""


@dataclass(frozen=True)
class Examples:
    """``features`` float32 (N,D), ``labels`` int64 (N,)."""

    features: np.ndarray
    labels: np.ndarray

    def where(self, chosen: np.ndarray) -> Self:
        """Those of ``chosen``, bool (N,)."""
        return type(self)(self.features[chosen], self.labels[chosen])


@dataclass(frozen=True)
class LinearHead:
    """Logits of K classes: ``features @ weight.T + bias``."""

    weight: np.ndarray
    """(K,D) float64"""
    bias: np.ndarray
    """(K,)"""
    strength: float
    """The C that was chosen."""
    loss: float
    """Mean cross-entropy of the training images; of the classes, each the same, where they are balanced."""


def solve_head(train: Examples, val: Examples, num_classes: int, *, is_balanced: bool) -> LinearHead:
    """The optimum of multinomial logistic regression with an L2 penalty, on standardised features.

    It minimises ``|W|^2 / 2 + C * sum of s_i * cross-entropy_i`` over weights W and biases, by L-BFGS. The
    ``s_i`` are 1 or, balanced, inverse to the size of the class with mean 1. Two classes have a single vector
    of weights. C is that of ``STRENGTHS`` with the best (balanced) accuracy on ``val``; of equal ones the
    one with the lower cross-entropy there, then the stronger regularisation.
    """
    space = Standardised.of(train.features)
    fit = Fit(space.of_raw(train.features), train.labels, num_classes, is_balanced)
    known = space.of_raw(val.features)
    best: tuple[float, float] | None = None
    chosen = UNCHOSEN, fit.nothing
    for strength, found in fit.path() if len(val.labels) else ():
        score = _score(known @ found[0].T + found[1], val.labels, is_balanced)
        if best is None or score > best:
            best, chosen = score, (strength, found)
    strength, begun = chosen
    weight, bias = fit.exactly(strength, begun)
    loss = _losses(fit.features @ weight.T + bias, train.labels)
    raw = weight / space.scale
    return LinearHead(raw, bias - raw @ space.mean, strength, float(np.average(loss, weights=fit.weights)))


@dataclass(frozen=True)
class Standardised:
    """Features with mean 0 and deviation 1."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        deviation = features.std(axis=0, dtype=np.float64)
        scale = np.maximum(deviation, SMALLEST_SCALE * np.median(deviation))
        return cls(features.mean(axis=0, dtype=np.float64), np.where(scale > 0, scale, 1.0))

    def of_raw(self, features: np.ndarray) -> np.ndarray:
        """(N,D) float32"""
        standardised = features - self.mean.astype(np.float32)
        standardised /= self.scale.astype(np.float32)
        return standardised


Solution = tuple[np.ndarray, np.ndarray]
"""Weights (K,D) and biases (K,) of standardised features."""


class Fit:
    """Fits to the same examples, one after the other."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, num_classes: int, is_balanced: bool) -> None:
        self.features, self._labels = features, labels
        self._present, counts = np.unique(labels, return_counts=True)
        balanced = len(labels) / (len(counts) * counts)
        self.weights = (
            balanced[np.searchsorted(self._present, labels)] if is_balanced else np.ones(len(labels))
        )
        """(N,)"""
        bias = np.full(num_classes, NEVER)
        bias[self._present] = 0.0
        self.nothing: Solution = np.zeros((num_classes, features.shape[1])), bias
        """Where a fit begins."""

    def path(self) -> Iterator[tuple[float, Solution]]:
        """A solution for each of ``STRENGTHS``, near its optimum; each begins where the one before ended."""
        found = self.nothing
        for strength in STRENGTHS:
            found = self._fit(self.features, strength, found, GRID_TOLERANCE, GRID_STEPS)
            yield strength, found

    def exactly(self, strength: float, begun: Solution) -> Solution:
        """The solution in float64."""
        return self._fit(self.features.astype(np.float64), strength, begun, TOLERANCE, STEPS)

    def _fit(
        self, features: np.ndarray, strength: float, begun: Solution, tolerance: float, steps: int
    ) -> Solution:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        if len(self._present) < 2:
            return self.nothing
        model = LogisticRegression(C=strength, tol=tolerance, max_iter=steps, warm_start=True)
        weight, bias = (part[self._present] for part in begun)
        if len(self._present) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        model.coef_, model.intercept_ = weight.astype(features.dtype), bias.astype(features.dtype)
        with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, self._labels, sample_weight=self.weights.astype(features.dtype))
        return self._solution(model)

    def _solution(self, model: Any) -> Solution:
        """Of all classes. Those of two that scikit-learn keeps as their difference are opposite."""
        weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        if len(self._present) == 2:
            weight, bias = (np.concatenate([-part, part]) / 2 for part in (weight, bias))
        whole, biases = (part.copy() for part in self.nothing)
        whole[self._present], biases[self._present] = weight, bias - bias.mean()
        return whole, biases


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy (N,) of logits (N,K)."""
    own: np.ndarray = logits[np.arange(len(labels)), labels]
    return np.asarray(np.logaddexp.reduce(logits, axis=1) - own)


def _score(logits: np.ndarray, labels: np.ndarray, is_balanced: bool) -> tuple[float, float]:
    """(Balanced) accuracy, and the cross-entropy with a minus; the larger, the better."""
    weights = 1 / np.bincount(labels)[labels] if is_balanced else np.ones(len(labels))
    accuracy = np.average(logits.argmax(1) == labels, weights=weights)
    # Rounded, because equal accuracies of other images differ in their last bits.
    return round(float(accuracy), 9), -float(np.average(_losses(logits, labels), weights=weights))
