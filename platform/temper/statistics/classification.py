"""Numbers that follow from labels, predictions and probabilities alone, image by image."""

from collections.abc import Sequence

import numpy as np

from temper.records import BaselinesRecord, OperatingPoint, Proportion, RocPoint, ValidationRecord
from temper.statistics.pairwise import pairwise_unpaired_p
from temper.statistics.proportions import wilson

MAX_ROC_POINTS = 101
NUM_MISTAKES = 12
"""That a record names."""


def validation_beside(acc: Proportion, balanced_acc: float, test: Proportion) -> ValidationRecord:
    """Validation accuracy beside that on other ``test`` images, with the gap and its p-value."""
    counts, totals = np.array([acc.count, test.count]), np.array([acc.total, test.total])
    p = float(pairwise_unpaired_p(counts, totals)[0, 1])
    return ValidationRecord(acc=acc, balanced_acc=balanced_acc, gap=acc.value - test.value, p=p)


def baselines(labels: np.ndarray, classes: Sequence[str]) -> BaselinesRecord:
    """Chance, and always answering the largest class, on images of ``labels`` (N,)."""
    counts = np.bincount(labels, minlength=len(classes))
    largest = int(counts.argmax())
    return BaselinesRecord(
        chance_acc=1 / len(classes),
        majority_class=classes[largest],
        majority_acc=float(counts[largest] / len(labels)),
    )


def confusion(
    labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Class -> {answer -> images}, both (N,); ``""`` is the answer of what is none of the classes."""
    names = [*classes, ""]
    known = np.where((predictions >= 0) & (predictions < len(classes)), predictions, len(classes))
    pairs, counts = np.unique(np.stack([labels, known]), axis=1, return_counts=True)
    found: dict[str, dict[str, int]] = {}
    for label, answer, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        found.setdefault(classes[label], {})[names[answer]] = count
    return found


def positive_scores(predictions: np.ndarray, confidences: np.ndarray) -> np.ndarray:
    """(N,) probability of the second of two classes, from the predicted one and its probability."""
    return np.where(predictions == 1, confidences, 1 - confidences)


def operating_point(threshold: float, scores: np.ndarray, labels: np.ndarray) -> OperatingPoint | None:
    """Of ``scores`` (N,) and ``labels`` (N,) in 0, 1; ``None`` where a class has no image."""
    positive = labels == 1
    if positive.all() or not positive.any():
        return None
    said = scores >= threshold
    return OperatingPoint(
        threshold=threshold,
        sensitivity=wilson(int((said & positive).sum()), int(positive.sum())),
        specificity=wilson(int((~said & ~positive).sum()), int((~positive).sum())),
    )


def choose_threshold(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The score in the middle of the gap at which sensitivity + specificity is largest (Youden 1950).

    Of several, the one nearest to a half. ``None`` where a class has no image.
    """
    positive = labels == 1
    if positive.all() or not positive.any():
        return None
    values = np.unique(scores)
    above = np.append(values, np.nextafter(values[-1], np.inf))
    cuts = np.concatenate([values[:1], (above[:-1] + above[1:]) / 2])
    rates = [float((scores[positive] >= cut).mean() + (scores[~positive] < cut).mean()) for cut in cuts]
    best = np.flatnonzero(np.array(rates) >= max(rates) - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> list[RocPoint]:
    """From (0, 0) to (1, 1), at most ``MAX_ROC_POINTS``; empty where a class has no image."""
    positive = labels == 1
    if positive.all() or not positive.any():
        return []
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.concatenate([[0.0], np.cumsum(positive[order])[ends] / positive.sum()])
    alarms = np.concatenate([[0.0], np.cumsum(~positive[order])[ends] / (~positive).sum()])
    if len(hits) > MAX_ROC_POINTS:
        kept = np.unique(np.linspace(0, len(hits) - 1, MAX_ROC_POINTS).round().astype(int))
        hits, alarms = hits[kept], alarms[kept]
    return [
        RocPoint(false_positive_rate=float(alarm), sensitivity=float(hit))
        for alarm, hit in zip(alarms, hits, strict=True)
    ]


def most_confident(wrong: np.ndarray, confidences: np.ndarray) -> np.ndarray:
    """Places of at most ``NUM_MISTAKES`` of the ``wrong`` (N,) bool, the surest first."""
    places = np.flatnonzero(wrong)
    return places[np.argsort(-confidences[places], kind="stable")][:NUM_MISTAKES]
