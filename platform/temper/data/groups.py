"""Images that belong together: copies, near duplicates, and the pictures of one patient, part or speaker."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

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


def joined(*numberings: np.ndarray) -> np.ndarray:
    """For every row (N,) a number that rows share which a chain of equal numbers in ``numberings`` links.

    -1 there is equal to nothing. Counted from 0 in the order of the rows.
    """
    parent = list(range(len(numberings[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for numbers in numberings:
        first: dict[int, int] = {}
        for row, number in enumerate(numbers.tolist()):
            if number >= 0:
                ends = sorted((root(row), root(first.setdefault(number, row))))
                parent[ends[1]] = ends[0]
    known: dict[int, int] = {}
    return np.array([known.setdefault(root(row), len(known)) for row in range(len(parent))], np.int64)


def straddling(values: Sequence[str | None], splits: Mapping[Split, Sequence[int]]) -> list[Straddling]:
    """Groups with images in more than one of ``splits``; ``values`` are those of every row."""
    counts: dict[str, Counter[Split]] = {}
    for split in SPLITS:
        for row in splits.get(split, ()):
            if (value := values[row]) is not None:
                counts.setdefault(value, Counter())[split] += 1
    return [Straddling(group=name, counts=dict(found)) for name, found in counts.items() if len(found) > 1]
