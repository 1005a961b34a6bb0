"""Metrics beyond plain accuracy, as fractions 0..1."""

import torch
from torch import Tensor

from temper.records import Metrics

NUM_CALIBRATION_BINS = 15
"""As in Guo et al. 2017, arXiv:1706.04599."""


def measure(logits: Tensor, labels: Tensor) -> Metrics:
    """All metrics of ``logits`` (N,C) against ``labels`` (N,)."""
    num_classes, prediction = logits.shape[1], logits.argmax(1)
    return Metrics(
        balanced_acc=balanced(prediction == labels, labels, num_classes),
        macro_f1=macro_f1(confusion_matrix(prediction, labels, num_classes)),
        auroc=auroc(logits, labels),
        ece=expected_calibration_error(logits, labels),
    )


def recalls(correct: Tensor, labels: Tensor, num_classes: int) -> dict[int, float]:
    """Class -> share of its images in ``correct`` (N,) bool; classes without images are left out."""
    total = torch.bincount(labels, minlength=num_classes)
    hits = torch.bincount(labels[correct], minlength=num_classes)
    return {label: int(hits[label]) / int(total[label]) for label in range(num_classes) if total[label] > 0}


def balanced(correct: Tensor, labels: Tensor, num_classes: int) -> float:
    """The mean of the recalls (macro-averaged accuracy)."""
    values = recalls(correct, labels, num_classes).values()
    return sum(values) / len(values)


def confusion_matrix(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(C,C) int64: images of each class (row) that were taken for each class (column)."""
    cells = torch.bincount(labels * num_classes + prediction, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def macro_f1(confusion: Tensor) -> float:
    """The mean F1 score of the classes from ``confusion`` (C,C): rows true, columns predicted.

    Classes that neither occur nor are predicted are left out; without any image it is 0.
    """
    counts = confusion.double()
    occurrences = counts.sum(0) + counts.sum(1)
    seen = occurrences > 0
    scores = 2 * counts.diagonal()[seen] / occurrences[seen]
    return float(scores.mean()) if len(scores) else 0.0


def auroc(logits: Tensor, labels: Tensor) -> float | None:
    """Area under the ROC curve from logits (N,C); over 2 classes the mean of one class against the rest.

    ``None`` where a class has no image.
    """
    num_classes = logits.shape[1]
    if len(torch.unique(labels)) < max(2, num_classes):
        return None
    if num_classes == 2:
        return binary_auroc(logits[:, 1] - logits[:, 0], labels)
    scores = logits.double().log_softmax(1)
    areas = [binary_auroc(scores[:, label], (labels == label).long()) for label in range(num_classes)]
    return sum(areas) / len(areas)


def binary_auroc(scores: Tensor, labels: Tensor) -> float:
    """How surely the score (N,) of a positive (label 1 of (N,)) is above a negative's; both must occur."""
    from sklearn.metrics import roc_auc_score  # seconds to import; not for workers

    return float(roc_auc_score(labels.numpy(), scores.double().numpy()))


def expected_calibration_error(logits: Tensor, labels: Tensor) -> float:
    """The gap between confidence and accuracy, averaged over images. Guo et al. 2017, arXiv:1706.04599.

    ``logits`` (N,C), ``labels`` (N,). Bins of confidence are of equal width and include their upper edge.
    (torchmetrics 1.9 gives a confidence of exactly 1 a bin of its own, and saturated softmaxes have many.)
    """
    confidence = logits.double().softmax(1).amax(1)
    correct = (logits.argmax(1) == labels).double()
    bins = (confidence * NUM_CALIBRATION_BINS).ceil().long().clamp(1, NUM_CALIBRATION_BINS) - 1
    gaps = torch.bincount(bins, weights=correct - confidence, minlength=NUM_CALIBRATION_BINS)
    return float(gaps.abs().sum() / len(labels))
