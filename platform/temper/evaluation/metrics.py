"""Accuracies per class, balanced accuracy and AUROC, as fractions 0..1."""

import torch
from torch import Tensor


def recalls(correct: Tensor, labels: Tensor, num_classes: int) -> dict[int, float]:
    """Class -> share of its images in ``correct`` (N,) bool; classes without images are left out."""
    total = torch.bincount(labels, minlength=num_classes)
    hits = torch.bincount(labels[correct], minlength=num_classes)
    return {label: int(hits[label]) / int(total[label]) for label in range(num_classes) if total[label] > 0}


def balanced(correct: Tensor, labels: Tensor, num_classes: int) -> float:
    """The mean of the recalls (macro-averaged accuracy)."""
    values = recalls(correct, labels, num_classes).values()
    return sum(values) / len(values)


def auroc(logits: Tensor, labels: Tensor) -> float | None:
    """Area under the ROC curve of a binary task from logits (N,2); ``None`` for other tasks."""
    if logits.shape[1] != 2 or len(torch.unique(labels)) < 2:
        return None
    from torchmetrics.functional.classification import binary_auroc  # seconds to import; not for workers

    return float(binary_auroc(logits[:, 1] - logits[:, 0], labels))
