"""The worst slice of each model, and its slices that differ from the others, as columns of a board."""

from collections.abc import Sequence

from temper.advice.words import p_value
from temper.formats import escape_markdown as escape
from temper.formats import markdown_table, percent, points
from temper.leaderboard.entries import Entry
from temper.records import FurtherTestRecord, SliceRecord

OF_SLICES = (
    "worst_slice", "worst_slice_images", "worst_slice_robust_acc", "worst_slice_robust_low",
    "worst_slice_robust_high", "worst_slice_robust_gap", "worst_slice_robust_p_adjusted", "different_slices",
)  # fmt: skip
"""Where some model has slices. ``different_slices``: gaps in points, with p-values (Holm's correction)."""


def has_slices(of: Entry | FurtherTestRecord) -> bool:
    return of.worst_slice is not None or len(of.different_slices) > 0


def slice_values(of: Entry | FurtherTestRecord) -> list[object]:
    """Those of ``OF_SLICES``."""
    worst, different = of.worst_slice, "; ".join(map(_differs, of.different_slices)) or None
    if worst is None:
        return [*[None] * (len(OF_SLICES) - 1), different]
    robust, gap = worst.robust_acc, worst.robust_gap
    measured = [None, None] if gap is None else [gap.value, gap.p_adjusted]
    return [_name(worst), robust.total, robust.value, robust.low, robust.high, *measured, different]


def markdown_slices(entries: Sequence[Entry]) -> list[str]:
    """A table of the models that have slices; nothing where none has."""
    rows: list[list[str]] = []
    for entry in entries:
        sets: list[tuple[str, Entry | FurtherTestRecord]] = [(entry.name, entry)]
        sets += [(f"{entry.name} on {one.name}", one) for one in entry.tests]
        rows += [[f"{entry.rank}", escape(name), *_cells(of)] for name, of in sets if has_slices(of)]
    if not rows:
        return []
    names = ["rank", "model", "worst slice", "images", "robust % (95 %)", "gap", "slices that differ"]
    about = (
        "Slices: test images of one value of an attribute. Gaps are points above or below all other images "
        "of the test set, with the p-value of Fisher's exact test after Holm's correction; those that differ "
        "have p below 0.05."
    )
    return [about, "", *markdown_table(names, rows, "rllrrrl"), ""]


def _cells(of: Entry | FurtherTestRecord) -> list[str]:
    worst, cells = of.worst_slice, ["–", "–", "–", "–"]
    if worst is not None:
        robust, gap = worst.robust_acc, worst.robust_gap
        cells = [
            escape(_name(worst)),
            f"{robust.total}",
            f"{percent(robust.value)} ({percent(robust.low)} to {percent(robust.high)})",
            "–" if gap is None else f"{points(gap.value)} ({p_value(gap.p_adjusted)})",
        ]
    return [*cells, escape("; ".join(map(_differs, of.different_slices)))]


def _name(one: SliceRecord) -> str:
    return f"{one.attribute}: {one.value}"


def _differs(one: SliceRecord) -> str:
    gaps = (("clean", one.clean_gap), ("robust", one.robust_gap))
    told = [
        f"{name} {points(gap.value)} ({p_value(gap.p_adjusted)})"
        for name, gap in gaps
        if gap is not None and gap.is_significant
    ]
    return f"{_name(one)} {', '.join(told)}"
