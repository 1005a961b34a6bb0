import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score
from torchmetrics.functional.classification import multiclass_auroc, multiclass_calibration_error

from temper.evaluation import metrics


def random_task(num_classes: int, count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are right more often than not, of classes of different sizes."""
    generator = np.random.default_rng(num_classes)
    shares = np.arange(1, num_classes + 1) / sum(range(1, num_classes + 1))
    labels = torch.from_numpy(generator.choice(num_classes, count, p=shares))
    logits = torch.from_numpy(generator.normal(size=(count, num_classes))).float()
    logits[range(count), labels] += 1
    return logits, labels


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_metrics_equal_scikit_learn(num_classes: int) -> None:
    logits, labels = random_task(num_classes)
    measured = metrics.measure(logits, labels)
    truth, prediction = labels.numpy(), logits.argmax(1).numpy()
    area = multiclass_auroc(logits.double().softmax(1), labels, num_classes)
    assert measured.balanced_acc == pytest.approx(balanced_accuracy_score(truth, prediction))
    assert measured.macro_f1 == pytest.approx(f1_score(truth, prediction, average="macro"))
    assert measured.auroc == pytest.approx(float(area), abs=1e-6)
    ours = metrics.confusion_matrix(logits.argmax(1), labels, num_classes)
    assert np.array_equal(ours.numpy(), confusion_matrix(truth, prediction))


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_calibration_error_equals_torchmetrics_off_the_edges(num_classes: int) -> None:
    logits, labels = random_task(num_classes)
    theirs = multiclass_calibration_error(logits.double().softmax(1), labels, num_classes, n_bins=15)
    assert metrics.expected_calibration_error(logits, labels) == pytest.approx(float(theirs), abs=1e-6)


def logits_of(confidences: list[float]) -> torch.Tensor:
    """Two classes; the first is predicted with each confidence."""
    return torch.tensor([[math.log(p / (1 - p)), 0.0] for p in confidences], dtype=torch.float64)


def test_calibration_error_by_hand() -> None:
    # Bin (0.6, 0.667]: confidence 0.62 and 0.64, one of two right; bin (0.867, 0.933]: 0.9, right.
    logits, labels = logits_of([0.62, 0.64, 0.9]), torch.tensor([0, 1, 0])
    expected = (2 * abs(0.5 - 0.63) + abs(1 - 0.9)) / 3
    assert metrics.expected_calibration_error(logits, labels) == pytest.approx(expected)


@pytest.mark.parametrize(("labels", "expected"), [([0, 0], 0.0), ([0, 1], 0.5), ([1, 1], 1.0)])
def test_calibration_error_of_certainty(labels: list[int], expected: float) -> None:
    """A softmax of exactly 1, and one just below, are in the same bin."""
    logits = torch.tensor([[1e4, 0.0], [20.0, 0.0]])
    assert metrics.expected_calibration_error(logits, torch.tensor(labels)) == pytest.approx(
        expected, abs=1e-6
    )


def test_macro_f1_by_hand() -> None:
    # Class 0: 2 of 3 right, nothing else taken for it. Class 1: 1 of 1 right, one other taken for it.
    # Class 2 does not occur and is not predicted; class 3 does not occur but is predicted once.
    confusion = torch.tensor([[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert metrics.macro_f1(confusion) == pytest.approx((4 / 5 + 2 / 4 + 0) / 3)
    assert metrics.macro_f1(confusion.double()) == metrics.macro_f1(confusion)
    assert metrics.macro_f1(torch.zeros(3, 3)) == 0.0


def test_auroc_by_hand_and_without_a_class() -> None:
    # Of the 4 pairs of a positive and a negative, 3 are in order and 1 is a tie.
    scores = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 1.0], [0.0, 0.0]])
    assert metrics.auroc(scores, torch.tensor([1, 1, 0, 0])) == pytest.approx(3.5 / 4)
    assert metrics.auroc(scores, torch.tensor([1, 1, 1, 1])) is None
    logits, labels = random_task(3)
    assert metrics.auroc(logits[labels != 1], labels[labels != 1]) is None


def test_auroc_does_not_saturate() -> None:
    """A sigmoid of these scores in single precision is 1 throughout."""
    scores = torch.tensor([[0.0, 50.0], [0.0, 60.0], [0.0, 70.0], [0.0, 80.0]])
    assert metrics.auroc(scores, torch.tensor([0, 0, 1, 1])) == 1.0


def test_recalls_leave_out_classes_without_images() -> None:
    labels = torch.tensor([0, 0, 2, 2, 2, 2])
    correct = torch.tensor([True, False, True, True, True, False])
    assert metrics.recalls(correct, labels, 3) == {0: 0.5, 2: 0.75}
    assert metrics.balanced(correct, labels, 3) == pytest.approx(0.625)
