"""Images that belong together: copies, near duplicates, and the pictures of one patient, part or speaker."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from temper.data.manifest import SPLITS, Copies, Split, Straddling

GROUP, SITE = "group", "site"
"""Attributes that mean something: images of a group belong in one split, those of a site were made there."""


def numbers_of(values: Sequence[str | None]) -> np.ndarray:
    """For every row (N,) a number that rows of one value share; -1 where nothing is known."""
    known: dict[str, int] = {}
    return np.array([-1 if one is None else known.setdefault(one, len(known)) for one in values], np.int64)


def numbers_among(copies: Iterable[Copies], count: int) -> np.ndarray:
    """For each of ``count`` rows the number of the first of ``copies`` that has it, else -1."""
    numbers = np.full(count, -1, np.int64)
    for number, one in enumerate(copies):
        numbers[one.rows] = number
    return numbers


def linked_rows(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """For each of ``count`` rows the first of those that a chain of ``pairs`` links with it."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return np.array([root(row) for row in range(count)], np.int64)


def joined(*numberings: np.ndarray) -> np.ndarray:
    """For every row (N,) a number that rows share which a chain of equal numbers in ``numberings`` links.

    -1 there is equal to nothing. Counted from 0 in the order of the rows.
    """
    count = len(numberings[0])
    linked = linked_rows(count, (pair for numbers in numberings for pair in _pairs(numbers)))
    known: dict[int, int] = {}
    return np.array([known.setdefault(row, len(known)) for row in linked.tolist()], np.int64)


def _pairs(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """Each row with the first of the same number."""
    first: dict[int, int] = {}
    return (
        (row, first.setdefault(number, row)) for row, number in enumerate(numbers.tolist()) if number >= 0
    )


def straddling(values: Sequence[str | None], splits: Mapping[Split, Sequence[int]]) -> list[Straddling]:
    """Groups with images in more than one of ``splits``; ``values`` are those of every row."""
    counts: dict[str, Counter[Split]] = {}
    for split in SPLITS:
        for row in splits.get(split, ()):
            if (value := values[row]) is not None:
                counts.setdefault(value, Counter())[split] += 1
    return [Straddling(group=name, counts=dict(found)) for name, found in counts.items() if len(found) > 1]
