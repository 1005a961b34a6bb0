"""Accuracy per value of each attribute."""

from collections.abc import Mapping, Sequence

import numpy as np

from temper.records import Gap, Proportion, SliceRecord
from temper.statistics.paired import holm
from temper.statistics.proportions import fisher_exact, wilson

PREFIX = "attribute/"
"""Of the columns of outcomes that hold an attribute; an image of which it is unknown has an empty text."""


def slices_of(columns: Mapping[str, np.ndarray]) -> list[SliceRecord]:
    """Each slice with its accuracies and gaps, from the columns (N,) of outcomes, by attribute and value."""
    slices = [
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
    return _with_gaps(slices, _share(columns["correct"]), _share(columns["robust"])) if slices else []


def _with_gaps(slices: Sequence[SliceRecord], clean: Proportion, robust: Proportion) -> list[SliceRecord]:
    """The same with gaps to the other images, if there are any; ``clean`` and ``robust`` are of all."""
    gaps = {
        (index, name): _gap(acc, whole)
        for index, one in enumerate(slices)
        for name, acc, whole in (("clean_gap", one.clean_acc, clean), ("robust_gap", one.robust_acc, robust))
        if acc.total < whole.total
    }
    adjusted = holm([p for _, p in gaps.values()])
    update: dict[int, dict[str, Gap]] = {}
    for ((index, name), (value, p)), corrected in zip(gaps.items(), adjusted, strict=True):
        update.setdefault(index, {})[name] = Gap(value=value, p=p, p_adjusted=corrected)
    return [one.model_copy(update=update.get(index, {})) for index, one in enumerate(slices)]


def _gap(acc: Proportion, whole: Proportion) -> tuple[float, float]:
    """Difference to the images of ``whole`` that are not in the slice, and its p-value."""
    rest = wilson(whole.count - acc.count, whole.total - acc.total)
    return acc.value - rest.value, fisher_exact(acc, rest)


def _share(mask: np.ndarray) -> Proportion:
    return wilson(int(mask.sum()), len(mask))
