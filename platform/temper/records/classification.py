"""What the answers to clean images say beyond accuracy: validation, baselines, two classes, mistakes."""

from pydantic import Field

from temper.records.accuracies import Proportion
from temper.spec import Spec


class ValidationRecord(Spec):
    """Clean accuracy of the same model on validation images, beside that on the test images."""

    acc: Proportion
    balanced_acc: float
    gap: float
    """Validation accuracy minus test accuracy: positive where the test images are harder."""
    p: float
    """Two-sided p-value that the two accuracies are alike (score test of two proportions)."""


class BaselinesRecord(Spec):
    """What is reached without looking at an image."""

    chance_acc: float
    """1 / classes: every class answered equally often."""
    majority_class: str
    """The class with the most test images."""
    majority_acc: float
    """Accuracy of always answering it."""


class OperatingPoint(Spec):
    """Which share of each of two classes is told right at one threshold; of the test images."""

    threshold: float = Field(ge=0)
    """Answer the positive class where its probability is at least this; above 1 it is never answered."""
    sensitivity: Proportion
    """Of the images of the positive class."""
    specificity: Proportion
    """Of the images of the other class."""


class RocPoint(Spec):
    false_positive_rate: float
    sensitivity: float


class BinaryRecord(Spec):
    """A model of two classes; probabilities are those of the model, before any calibration."""

    positive: str
    """The second of the classes."""
    at_half: OperatingPoint
    chosen: OperatingPoint | None
    """At the threshold whose sensitivity and specificity add up to the most on validation images (Youden's
    J); ``None`` without validation images of both classes.
    """
    roc: list[RocPoint]
    """The ROC curve of the test images, from (0, 0) to (1, 1)."""


class MistakeRecord(Spec):
    """A wrong answer to a clean test image."""

    row: int
    """The image's number in the shards."""
    path: str | None
    """Its file in the source folder, where the shards tell."""
    label: str
    prediction: str
    confidence: float
    """Probability of the predicted class, 0..1."""
