"""Stratified, seeded splits."""

import logging
from collections.abc import Sequence

import numpy as np

from temper.data.manifest import SPLITS, Split
from temper.errors import DataError
from temper.seeds import derive_seed

logger = logging.getLogger(__name__)


def draw_splits(
    labels: np.ndarray,
    stored: Sequence[Split],
    classes: Sequence[str],
    *,
    val_frac: float,
    test_frac: float,
    seed: int,
) -> dict[Split, list[int]]:
    """Row numbers of each split; a split that the source lacks is drawn from its training rows.

    ``labels`` (N,) and ``stored`` give each row's class and the split of its folder. Within a class the
    share is rounded, and is at least one image.

    Raises:
        DataError: a class too small to have an image in every split.
    """
    rows: dict[Split, list[int]] = {
        split: [row for row, name in enumerate(stored) if name == split] for split in SPLITS
    }
    fractions: dict[Split, float] = {"test": test_frac, "val": val_frac}
    for split, frac in fractions.items():
        if rows[split]:
            continue
        drawn = _draw(labels, rows["train"], frac, derive_seed(seed, "split", split), classes, split)
        rows[split] = sorted(drawn)
        rows["train"] = sorted(set(rows["train"]) - drawn)
    for split, members in rows.items():
        for label, count in enumerate(np.bincount(labels[members], minlength=len(classes))):
            if count == 0:
                raise DataError(
                    f"class '{classes[label]}' has 0 readable images in the split '{split}'; "
                    "every class needs at least one in each split: add some, or remove the class"
                )
    return rows


def _draw(
    labels: np.ndarray, rows: Sequence[int], frac: float, seed: int, classes: Sequence[str], split: str
) -> set[int]:
    generator = np.random.default_rng(seed)
    drawn: set[int] = set()
    for label, name in enumerate(classes):
        members = [row for row in rows if labels[row] == label]
        count = max(1, round(len(members) * frac))
        if len(members) - count < 1:
            raise DataError(
                f"class '{name}' has {len(members)} image(s) to share between training and '{split}': "
                f"too few; add images, or give '{split}' a folder of its own"
            )
        drawn |= set(generator.permutation(members)[:count].tolist())
    return drawn


def stratified_subset(labels: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    """Sorted positions of at most ``size`` images: every class keeps its share, and at least one image.

    With fewer images than classes, the largest are the likeliest to be there.
    """
    if size is None or size >= len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(derive_seed(seed, "subset")).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    chosen = by_class[np.linspace(0, len(labels) - 1, size).round().astype(int)]
    return np.sort(_with_every_class(chosen, labels, order))


def _with_every_class(chosen: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """``chosen`` with an image of each class that it lacks, instead of one of the class that has the most."""
    absent = np.setdiff1d(labels, labels[chosen])
    if len(chosen) < len(np.unique(labels)):
        return chosen
    for label in absent:
        counts = np.bincount(labels[chosen])
        last = np.flatnonzero(labels[chosen] == counts.argmax())[-1]
        chosen[last] = order[labels[order] == label][0]
    return chosen


def warn_of_absent(labels: np.ndarray, classes: Sequence[str], setting: str) -> None:
    """Say which classes have no image among ``labels`` (N,), the images that ``setting`` chose."""
    absent = [name for label, name in enumerate(classes) if not (labels == label).any()]
    if absent:
        shown = f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
        logger.warning(
            "%s: %d images hold none of %d of the %d classes (%s), which balanced accuracy therefore leaves "
            "out; at least %d images keep every class",
            setting,
            len(labels),
            len(absent),
            len(classes),
            shown,
            len(classes),
        )
