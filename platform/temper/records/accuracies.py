"""How good predictions are: proportions with intervals, and metrics beyond accuracy."""

from pydantic import Field

from temper.spec import Spec


class Interval(Spec):
    """A 95 % confidence interval, as fractions 0..1."""

    low: float
    high: float


class Proportion(Spec):
    """``count`` of ``total`` images, with its Wilson interval."""

    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    count: int = Field(ge=0)
    total: int = Field(ge=1)


class Metrics(Spec):
    """How good predictions are beyond plain accuracy."""

    balanced_acc: float
    macro_f1: float
    auroc: float | None
    """Over 2 classes: the mean of one class against the rest. ``None`` where a class has no image."""
    ece: float
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""


class MetricsRecord(Spec):
    """Metrics on clean images and under attack.

    Under attack each image counts with the logits of the perturbation that fooled the model, or else of
    the one with the smallest margin between the true class and the best other one.
    """

    clean: Metrics
    robust: Metrics
