"""Further test sets as columns of a board."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from temper.formats import escape_markdown as escape
from temper.formats import markdown_table, percent
from temper.leaderboard.entries import Entry
from temper.leaderboard.slices import OF_SLICES, has_slices, slice_values
from temper.records import FurtherTestRecord

OF_FURTHER = (
    "clean_acc", "clean_drop", "robust_acc", "robust_low", "robust_high", "robust_drop", "robust_drop_low",
    "robust_drop_high",
)  # fmt: skip
"""Of each further test set, where some model has one: ``tests/NAME/clean_acc`` and so on."""


@dataclass(frozen=True)
class FurtherColumn:
    """A further test set on which some model of a board was evaluated."""

    label: str
    """Its name, and its fingerprint where models call different images so."""
    key: tuple[str, str, int]
    has_slices: bool
    """Whether some model has slices of it."""

    def of(self, entry: Entry) -> FurtherTestRecord | None:
        """What ``entry`` has on it."""
        return next((one for one in entry.tests if _key(one) == self.key), None)

    @property
    def names(self) -> list[str]:
        """Of the columns of a table."""
        names = (*OF_FURTHER, *(OF_SLICES if self.has_slices else ()))
        return [f"tests/{self.label}/{name}" for name in names]

    def values(self, entry: Entry) -> list[object]:
        """Those of ``names``."""
        one = self.of(entry)
        if one is None:
            return [None] * len(self.names)
        robust, drop = one.robust_acc, one.robust_drop
        return [
            one.clean_acc.value, one.clean_drop.value, robust.value, robust.low, robust.high,
            drop.value, drop.low, drop.high, *(slice_values(one) if self.has_slices else ()),
        ]  # fmt: skip


def further_columns(entries: Iterable[Entry]) -> list[FurtherColumn]:
    """The further test sets of ``entries``, by name."""
    found: dict[tuple[str, str, int], bool] = {}
    for one in (one for entry in entries for one in entry.tests):
        found[_key(one)] = has_slices(one) or found.get(_key(one), False)
    times = Counter(name for name, _, _ in found)
    return [
        FurtherColumn(
            name if times[name] == 1 else f"{name} ({fingerprint[:6]}, {num_images} images)",
            (name, fingerprint, num_images),
            is_sliced,
        )
        for (name, fingerprint, num_images), is_sliced in sorted(found.items())
    ]


def markdown_further(entries: Sequence[Entry]) -> list[str]:
    """Robust accuracy on each further test set, and the drop from the main one, where some model has one."""
    columns = further_columns(entries)
    if not columns:
        return []
    rows = []
    for entry in (entry for entry in entries if entry.tests):
        cells = [f"{entry.rank}", escape(entry.full_name), percent(entry.robust_acc)]
        cells += [
            "" if one is None else f"{percent(one.robust_acc.value)} ({percent(one.robust_drop.value)})"
            for one in (column.of(entry) for column in columns)
        ]
        rows.append(cells)
    names = ["rank", "model", "robust %", *(f"{escape(one.label)} (drop)" for one in columns)]
    return ["Further test sets, robust %:", "", *markdown_table(names, rows, "rlr" + "r" * len(columns)), ""]


def _key(one: FurtherTestRecord) -> tuple[str, str, int]:
    return one.name, one.fingerprint, one.num_images
