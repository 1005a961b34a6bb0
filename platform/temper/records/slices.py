"""Accuracy of the images that share a value of an attribute, such as a site."""

from collections.abc import Sequence

from temper.records.accuracies import Proportion
from temper.spec import Spec

MIN_IMAGES = 10
"""Of a slice, with fewer of which it is not called the worst."""
SIGNIFICANT = 0.05
"""Corrected p-value, below which a gap is more than chance."""


class Gap(Spec):
    """How the accuracy of a slice differs from that of all other images of its test set."""

    value: float
    """Accuracy of the slice minus that of the others."""
    p: float
    """Fisher's exact test, two-sided."""
    p_adjusted: float
    """``p`` after Holm's correction: clean and robust gaps of all slices of one test set are one family."""

    @property
    def is_significant(self) -> bool:
        return self.p_adjusted < SIGNIFICANT


class SliceRecord(Spec):
    """The test images of one value of one attribute."""

    attribute: str
    value: str
    clean_acc: Proportion
    robust_acc: Proportion
    clean_gap: Gap | None = None
    """``None`` in older records, and where no image is outside of the slice; as ``robust_gap``."""
    robust_gap: Gap | None = None

    @property
    def is_different(self) -> bool:
        """Whether a gap is more than chance."""
        return any(gap is not None and gap.is_significant for gap in (self.clean_gap, self.robust_gap))


def worst_slice(slices: Sequence[SliceRecord]) -> SliceRecord | None:
    """The slice of ``MIN_IMAGES`` images or more that has the lowest robust accuracy, then clean accuracy."""
    large = [one for one in slices if one.robust_acc.total >= MIN_IMAGES]
    return min(large, key=lambda one: (one.robust_acc.value, one.clean_acc.value), default=None)
