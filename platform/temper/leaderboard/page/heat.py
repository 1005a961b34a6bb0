"""Tables whose cells are coloured by their numbers: classes and corruptions by model."""

from collections.abc import Mapping
from dataclasses import dataclass

from temper.leaderboard.boards import Board
from temper.leaderboard.entries import Entry

MAX_ROWS = 20
MAX_COLUMNS = 40


@dataclass(frozen=True)
class HeatTable:
    """Models by columns; fractions 0..1, ``None`` where a model was not measured."""

    title: str
    note: str
    columns: list[str]
    rows: list[tuple[Entry, list[float | None]]]


def heat_tables(board: Board) -> list[HeatTable]:
    """Robust accuracy per class, and accuracy per corruption, of the best models of a board."""
    classes = _table(
        "Robust accuracy per class",
        "In percent, under the worst attack.",
        [(entry, entry.per_class) for entry in board.entries],
    )
    corruptions = _table(
        "Accuracy per corruption",
        "In percent, the mean over five severities (Hendrycks and Dietterich 2019).",
        [(entry, kinds) for entry in board.entries if (kinds := _corruptions(entry))],
    )
    return [table for table in (classes, corruptions) if table is not None]


def _table(title: str, note: str, rows: list[tuple[Entry, Mapping[str, float]]]) -> HeatTable | None:
    columns = list(dict.fromkeys(name for _, values in rows for name in values))
    if not columns:
        return None
    left_out = [
        *([f"the best {MAX_ROWS} of {len(rows)} models"] if len(rows) > MAX_ROWS else []),
        *([f"the first {MAX_COLUMNS} of {len(columns)} columns"] if len(columns) > MAX_COLUMNS else []),
    ]
    shown = columns[:MAX_COLUMNS]
    return HeatTable(
        title,
        f"{note} Shown: {' and '.join(left_out)}." if left_out else note,
        shown,
        [(entry, [values.get(name) for name in shown]) for entry, values in rows[:MAX_ROWS]],
    )


def _corruptions(entry: Entry) -> dict[str, float]:
    return {
        kind: sum(severities) / len(severities)
        for group in entry.corruptions
        for kind, severities in group.kinds.items()
        if severities
    }
