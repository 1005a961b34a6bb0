"""Accuracy of the images that share a value of an attribute, such as a site."""

from collections.abc import Sequence

from temper.records.accuracies import Proportion
from temper.spec import Spec

MIN_IMAGES = 10
"""Of a slice, with fewer of which it is not called the worst."""


class SliceRecord(Spec):
    """The test images of one value of one attribute."""

    attribute: str
    value: str
    clean_acc: Proportion
    robust_acc: Proportion


def worst_slice(slices: Sequence[SliceRecord]) -> SliceRecord | None:
    """The slice of ``MIN_IMAGES`` images or more that has the lowest robust accuracy, then clean accuracy."""
    large = [one for one in slices if one.robust_acc.total >= MIN_IMAGES]
    return min(large, key=lambda one: (one.robust_acc.value, one.clean_acc.value), default=None)
