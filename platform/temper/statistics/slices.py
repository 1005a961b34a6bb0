"""Accuracy per value of each attribute."""

from collections.abc import Mapping

import numpy as np

from temper.records import Proportion, SliceRecord
from temper.statistics.proportions import wilson

PREFIX = "attribute/"
"""Of the columns of outcomes that hold an attribute; an image of which it is unknown has an empty text."""


def slices_of(columns: Mapping[str, np.ndarray]) -> list[SliceRecord]:
    """Clean and robust accuracy of each slice, from the columns (N,) of outcomes, by attribute and value."""
    return [
        SliceRecord(
            attribute=name.removeprefix(PREFIX),
            value=value,
            clean_acc=_share(columns["correct"][values == value]),
            robust_acc=_share(columns["robust"][values == value]),
        )
        for name, values in columns.items()
        if name.startswith(PREFIX)
        for value in np.unique(values).tolist()
        if value
    ]


def _share(mask: np.ndarray) -> Proportion:
    return wilson(int(mask.sum()), len(mask))
