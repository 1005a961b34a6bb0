"""``index.html``: one page that stands alone."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from temper.charts import chart_script
from temper.leaderboard.boards import Board, headings
from temper.leaderboard.entries import Entry
from temper.leaderboard.external import NOT_MEASURED, ExternalEntry, ExternalTable, rows_of, table_beside
from temper.leaderboard.further_tests import FurtherColumn, further_columns
from temper.leaderboard.page.charts import curves, scatter
from temper.leaderboard.page.environment import asset, content_policy, environment
from temper.leaderboard.page.fold_charts import consistency, crossval_folds
from temper.leaderboard.page.heat import HeatTable, heat_tables
from temper.leaderboard.summary import LeaderboardSummary
from temper.leaderboard.sweeps import SweepNews

MAX_ILLUSTRATED = 8
"""Boards with pictures, those with the most models first: a page must stay small."""
MAX_FIGURE_BYTES = 400_000
MAX_FIGURES_BYTES = 1_200_000
"""Of all boards together, as they stand in the page."""


@dataclass(frozen=True)
class Shown:
    """A board with everything that stands below its table."""

    board: Board
    apart: str
    """What its heading adds, where another board has the same data and threat model."""
    rows: list[Entry | ExternalEntry]
    """Of its ranking: what was published elsewhere stands between its ranked models."""
    published: int | None
    """The number of the table that those are of, from 1."""
    charts: list[Markup]
    heats: list[HeatTable]
    union: list[Entry]
    """Models within several threat models, best union first."""
    threats: list[str]
    """Those further threat models."""
    tested: list[Entry]
    """Models with further test sets."""
    tests: list[FurtherColumn]
    """Those sets."""
    figure: str | None
    """Adversarial examples of the best model, as a data URL."""
    is_illustrated: bool


def render_index(
    summary: LeaderboardSummary, *, is_live: bool = False, sweeps: Sequence[SweepNews] = ()
) -> str:
    """The page; every word in it that comes from a record is escaped. ``sweeps`` stand below the boards."""
    shown = _show_all(summary)
    folds = [(crossval, crossval_folds(crossval)) for crossval in summary.crossvals]
    has_charts = any(one.charts for one in shown) or any(chart for _, chart in folds)
    scripts = [asset("board.js"), *([chart_script()] if has_charts else [])]
    if is_live:
        scripts.append(asset("live.js"))
    return (
        environment()
        .get_template("index.html.j2")
        .render(
            summary=summary,
            sweeps=sweeps,
            shown=shown,
            folds=folds,
            num_published=sum(len(table.entries) for table in summary.external),
            published=[(table, _has_board(table, summary.boards)) for table in summary.external],
            **_filters(summary),
            policy=content_policy(scripts, is_live=is_live),
            scripts=[Markup(script) for script in scripts],  # noqa: S704  # files of ours
        )
    )


def _filters(summary: LeaderboardSummary) -> dict[str, Any]:
    """How many models there are, and the choices that narrow them down."""
    entries = [
        entry for board in summary.boards for entry in (*board.entries, *board.blocked, *board.unverified)
    ]
    statuses = _unique(entry.status for entry in entries)
    threats = [board.threat for board in summary.boards] + [table.threat for table in summary.external]
    return {
        "num_models": len(entries),
        "norms": _unique(one.norm for one in threats),
        "adversaries": _unique(entry.adversary for entry in entries),
        "statuses": [*statuses, NOT_MEASURED] if summary.external else statuses,
    }


def _has_board(table: ExternalTable, boards: Sequence[Board]) -> bool:
    return any(table_beside(board.data_name, board.threat, [table]) for board in boards)


def _show_all(summary: LeaderboardSummary) -> list[Shown]:
    by_size = sorted(summary.boards, key=lambda board: -len(board.entries))[:MAX_ILLUSTRATED]
    illustrated, figures = {id(board) for board in by_size}, _figures(by_size)
    return [
        _show(board, apart, id(board) in illustrated, figures.get(id(board)), summary.external)
        for board, apart in zip(summary.boards, headings(summary.boards), strict=True)
    ]


def _show(
    board: Board, apart: str, is_illustrated: bool, figure: str | None, external: Sequence[ExternalTable]
) -> Shown:
    table = table_beside(board.data_name, board.threat, external)
    drawn = [scatter(board), curves(board), consistency(board)] if is_illustrated else []
    union = [entry for entry in board.entries if entry.others]
    return Shown(
        board=board,
        apart=apart,
        rows=rows_of(board.entries, table),
        published=None if table is None else external.index(table) + 1,
        charts=[chart for chart in drawn if chart is not None],
        heats=heat_tables(board) if is_illustrated else [],
        union=sorted(union, key=lambda entry: -(entry.union_acc or 0.0)),
        threats=_unique(one.threat.label for entry in union for one in entry.others),
        tested=[entry for entry in board.entries if entry.tests],
        tests=further_columns(board.entries),
        figure=figure,
        is_illustrated=is_illustrated,
    )


def figure_url(record: Path, name: str = "figure.png") -> str | None:
    """A picture beside the record as a data URL, where it is there and small."""
    path = record.with_name(name)
    if not path.is_file() or path.stat().st_size > MAX_FIGURE_BYTES:
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _figures(boards: Iterable[Board]) -> dict[int, str]:
    """Id of a board -> the picture of its best model, as long as there is room."""
    figures: dict[int, str] = {}
    left = MAX_FIGURES_BYTES
    for board in boards:
        url = figure_url(Path(board.entries[0].path)) if board.entries else None
        if url is not None and len(url) <= left:
            figures[id(board)] = url
            left -= len(url)
    return figures


def _unique(values: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(values))


def render_waiting(reason: str, sweeps: Sequence[SweepNews] = ()) -> str:
    """What a server shows where there is no record yet."""
    script = asset("live.js")
    return (
        environment()
        .get_template("waiting.html.j2")
        .render(
            reason=reason,
            sweeps=sweeps,
            policy=content_policy([script], is_live=True),
            script=Markup(script),  # noqa: S704  # a file of ours
        )
    )
