"""Stratified, seeded splits."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from temper.data.manifest import SPLITS, Copies, Split
from temper.errors import DataError
from temper.seeds import derive_seed

logger = logging.getLogger(__name__)
UNEVEN = 0.25
"""How far the images of a class may be from their share, as a fraction of it, before it is said."""


def draw_splits(
    labels: np.ndarray,
    stored: Sequence[Split],
    classes: Sequence[str],
    groups: np.ndarray,
    *,
    val_frac: float,
    test_frac: float,
    seed: int,
) -> dict[Split, list[int]]:
    """Row numbers of each split; a split that the source lacks is drawn from its training rows.

    ``labels`` (N,) and ``stored`` give each row's class and the split of its folder. Within a class the
    share is rounded, and is at least one image. Rows of the same of the ``groups`` (N,) are drawn together.

    Raises:
        DataError: a class too small to have a picture of its own in every split.
    """
    rows: dict[Split, list[int]] = {
        split: [row for row, name in enumerate(stored) if name == split] for split in SPLITS
    }
    fractions: dict[Split, float] = {"test": test_frac, "val": val_frac}
    for split, frac in fractions.items():
        if rows[split]:
            continue
        drawn = _draw(labels, groups, rows["train"], frac, derive_seed(seed, "split", split), classes, split)
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
    labels: np.ndarray,
    groups: np.ndarray,
    rows: Sequence[int],
    frac: float,
    seed: int,
    classes: Sequence[str],
    split: str,
) -> set[int]:
    generator = np.random.default_rng(seed)
    label_of, group_of = labels.tolist(), groups.tolist()
    by_class: list[list[int]] = [[] for _ in classes]
    members: dict[int, list[int]] = {}
    for row in rows:
        by_class[label_of[row]].append(row)
        members.setdefault(group_of[row], []).append(row)
    sizes = [len(own) for own in by_class]
    shares = [max(1, round(size * frac)) for size in sizes]
    drawn = _Drawn(label_of, [0] * len(classes))
    for label, name in enumerate(classes):
        if sizes[label] - shares[label] < 1:
            raise DataError(_too_few(name, f"{sizes[label]} image(s)", split))
        order = generator.permutation(by_class[label]).tolist()
        own = [members[group_of[row]] for row in order]
        drawn.take(own, label, shares, shares[label])
        # A class of which no group fits into the share gives one that leaves something for training.
        drawn.take(sorted(own, key=len), label, [size - 1 for size in sizes], 1)
        if not drawn.counts[label]:
            copies = (
                f"{sizes[label]} image(s), but too few that are not copies of each other or of one group,"
            )
            raise DataError(_too_few(name, copies, split))
    warn_of_uneven(f"the split '{split}'", drawn.counts, shares, classes)
    return drawn.rows


@dataclass
class _Drawn:
    """Rows that were drawn, and how many of each class."""

    labels: Sequence[int]
    counts: list[int]
    rows: set[int] = field(default_factory=set)

    def take(self, groups: Sequence[list[int]], label: int, limits: Sequence[int], wanted: int) -> None:
        """Add whole groups until ``wanted`` rows are of ``label``; no class gets more than its limit."""
        for group in groups:
            if self.counts[label] >= wanted:
                return
            found = Counter(self.labels[row] for row in group)
            fits = all(self.counts[other] + count <= limits[other] for other, count in found.items())
            if fits and group[0] not in self.rows:
                self.rows.update(group)
                for other, count in found.items():
                    self.counts[other] += count


def _too_few(name: str, what: str, split: str) -> str:
    return (
        f"class '{name}' has {what} to share between training and '{split}': "
        f"too few; add images, or give '{split}' a folder of its own"
    )


def copies_among(
    groups: np.ndarray, paths: Sequence[str], labels: Sequence[int], classes: Sequence[str]
) -> list[Copies]:
    """The rows of each of ``groups`` (N,) with more than one; -1 is none."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [
        Copies(
            rows=rows.tolist(),
            paths=[paths[row] for row in rows],
            classes=[classes[label] for label in sorted({labels[row] for row in rows})],
        )
        for rows in parts
        if len(rows) > 1 and groups[rows[0]] >= 0
    ]


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


def warn_of_uneven(
    where: str, counts: Sequence[int], wanted: Sequence[float], classes: Sequence[str]
) -> None:
    """Say which classes have far from the images that they should, because groups are never cut."""
    uneven = [
        f"{count} instead of {share:.0f} images of the class '{name}'"
        for name, count, share in zip(classes, counts, wanted, strict=True)
        if abs(count - share) > max(1, UNEVEN * share)
    ]
    if uneven:
        more = f" and {len(uneven) - 5} more classes" if len(uneven) > 5 else ""
        logger.warning("%s has %s%s: groups and copies stay whole", where, ", ".join(uneven[:5]), more)


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
