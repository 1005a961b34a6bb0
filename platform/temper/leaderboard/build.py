"""Building the board's files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from temper.leaderboard.collect import Problem, collect
from temper.leaderboard.page import render_page
from temper.leaderboard.rank import Board, Entry, rank
from temper.records import escape_markdown, write_atomic
from temper.spec import Spec


class SkippedRecord(Spec):
    """A record file that is on no board."""

    path: str
    reason: str


class LeaderboardSummary(Spec):
    """``leaderboard.json``: all boards, and the record files that are on none."""

    schema_version: Literal[1] = 1
    as_of: str
    """The newest record's date."""
    boards: list[Board]
    skipped: list[SkippedRecord]


def build_leaderboard(results: Sequence[Path], out: Path) -> LeaderboardSummary:
    """Write index.html, leaderboard.md, .csv and .json into ``out`` from the records under ``results``.

    The same records give the same files, byte for byte.

    Raises:
        UsageError: a path that does not exist.
        RecordError: no record at all.
    """
    found, problems = collect(results)
    summary = LeaderboardSummary(
        as_of=max((item.record.created for item in found), default=""),
        boards=rank(found),
        skipped=[_skipped(problem) for problem in problems],
    )
    write_atomic(out / "index.html", render_page(summary.boards, problems, summary.as_of, out))
    write_atomic(out / "leaderboard.md", to_markdown(summary))
    write_atomic(out / "leaderboard.csv", to_csv(summary))
    write_atomic(out / "leaderboard.json", summary.model_dump_json(indent=2) + "\n")
    return summary


def _skipped(problem: Problem) -> SkippedRecord:
    return SkippedRecord(path=str(problem.path), reason=problem.reason)


def to_markdown(summary: LeaderboardSummary) -> str:
    """Tables that fit a README or a pull request."""
    lines = ["# Robustness leaderboard", ""]
    for board in summary.boards:
        lines += [
            f"## {escape_markdown(board.data_name)}: {escape_markdown(board.threat.label)}",
            "",
            f"{board.num_images} test images, {len(board.classes)} classes; "
            f"suite `{escape_markdown(board.suite)}` version {board.suite_version}; "
            f"data fingerprint `{escape_markdown(board.fingerprint)}`.",
            "",
            "| rank | model | clean % | robust % (95 %) | source % | alpha | schedule | trained against |",
            "|---:|---|---:|---:|---:|---:|---|---|",
            *(_md_row(entry) for entry in board.entries),
            "",
        ]
        if board.blocked:
            lines += ["Blocked, not ranked:", ""]
            lines += [
                f"- {escape_markdown(entry.name)}: {escape_markdown('; '.join(entry.reasons))}"
                for entry in board.blocked
            ]
            lines.append("")
    if summary.skipped:
        lines += ["Records left out:", ""]
        lines += [
            f"- {escape_markdown(item.path)}: {escape_markdown(item.reason)}" for item in summary.skipped
        ] + [""]
    return "\n".join(lines)


def _md_row(entry: Entry) -> str:
    source = "" if entry.source_acc is None else f"{entry.source_acc:.1%}"
    alpha = "" if entry.alpha is None else f"{entry.alpha:.3g}"
    robust = f"{entry.robust_acc:.1%} ({entry.robust_low:.1%} to {entry.robust_high:.1%})"
    cells = [
        str(entry.rank), escape_markdown(entry.name), f"{entry.clean_acc:.1%}", robust, source, alpha,
        escape_markdown(entry.schedule), escape_markdown(entry.adversary),
    ]  # fmt: skip
    return "| " + " | ".join(cells).replace("%", "") + " |"


COLUMNS = (
    "rank", "name", "status", "clean_acc", "clean_low", "clean_high", "robust_acc", "robust_low",
    "robust_high", "balanced_acc", "robust_balanced_acc", "macro_f1", "robust_macro_f1", "auroc",
    "robust_auroc", "ece", "robust_ece", "source_acc", "source_retention", "alpha", "schedule",
    "adversary", "backbone", "num_params", "num_trained_params", "adapter", "train_s", "created",
    "seed", "recipe_hash",
)  # fmt: skip


def to_csv(summary: LeaderboardSummary) -> str:
    """One row per entry of every board, blocked ones included."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["data", "fingerprint", "norm", "eps", "suite", *COLUMNS])
    for board in summary.boards:
        place = [board.data_name, board.fingerprint, board.threat.norm, board.threat.eps, board.suite]
        for entry in [*board.entries, *board.blocked]:
            writer.writerow([_cell(value) for value in (*place, *(getattr(entry, name) for name in COLUMNS))])
    return buffer.getvalue()


def _cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value
