"""The board as Markdown, as CSV, and the schema of its JSON."""

import csv
import io
from collections.abc import Iterator

from temper.formats import escape_markdown as escape
from temper.formats import markdown_table, percent, spreadsheet_cell
from temper.leaderboard.boards import Board, headings
from temper.leaderboard.changes import Change, Changes
from temper.leaderboard.entries import Entry
from temper.leaderboard.external import NOT_MEASURED, ExternalEntry, ExternalTable, rows_of, table_beside
from temper.leaderboard.further_tests import FurtherColumn, further_columns, markdown_further
from temper.leaderboard.slices import OF_SLICES, has_slices, markdown_slices, slice_values
from temper.leaderboard.summary import LeaderboardSummary

MEASURED = (
    "rank", "is_tied", "name", "status", "clean_acc", "clean_low", "clean_high", "robust_acc", "robust_low",
    "robust_high", "balanced_acc", "robust_balanced_acc", "macro_f1", "robust_macro_f1", "auroc",
    "robust_auroc", "ece", "robust_ece", "source_acc", "source_retention", "corruption_acc", "union_acc",
    "ood_auroc", "adversarial_auroc", "aurc",
    "alpha", "schedule", "adversary", "backbone", "num_params", "num_trained_params", "adapter", "baseline",
    "train_s", "evaluate_s", "gpu_s", "created", "seed", "recipe_hash",
)  # fmt: skip
PUBLISHED = (
    "publisher", "evaluated_with", "autoattack_acc", "external_acc", "reported_acc", "is_unreliable",
    "extra_data", "venue", "title", "link", "footnote",
)  # fmt: skip
"""Empty for a model that was measured; one that was not has only these and name, accuracies and backbone."""
COLUMNS = (*MEASURED, *PUBLISHED)
COLUMNS_OF_BOARD = (
    "rank", "model", "clean %", "robust % (95 %)", "corrupted %", "source %", "schedule", "trained against",
)  # fmt: skip
PLACE = ("data", "fingerprint", "norm", "eps", "channels", "suite", "suite_version")


def to_markdown(summary: LeaderboardSummary) -> str:
    """Tables that fit a README or a pull request."""
    lines = ["# Robustness leaderboard", ""]
    if summary.changes is not None:
        lines += _md_changes(summary.changes)
    for board, apart in zip(summary.boards, headings(summary.boards), strict=True):
        lines += _md_board(board, apart, table_beside(board.data_name, board.threat, summary.external))
    for table in summary.external:
        lines += _md_external(table)
    if summary.skipped:
        lines += ["## Records left out", ""]
        lines += [f"- {escape(item.path)}: {escape(item.reason)}" for item in summary.skipped] + [""]
    return "\n".join(lines)


def _md_board(board: Board, apart: str, external: ExternalTable | None) -> list[str]:
    rows = [
        _md_row(row) if isinstance(row, Entry) else _md_external_row(row)
        for row in rows_of(board.entries, external)
    ]
    note = f" Models in italics were {NOT_MEASURED}: see below." if external else ""
    lines = [
        f"## {escape(board.data_name)}: {escape(board.threat.label)}{escape(f', {apart}' if apart else '')}",
        "",
        f"{board.num_images} test images, {len(board.classes)} classes; "
        f"suite {escape(board.suite)} version {board.suite_version}"
        f"{f' ({board.caution})' if board.caution else ''}; "
        f"data fingerprint {escape(board.fingerprint)}. Models that a paired test cannot tell apart share "
        f"a rank.{note}",
        "",
        *markdown_table(COLUMNS_OF_BOARD, rows, "rlrrrrll"),
        "",
        *markdown_further(board.entries),
        *markdown_slices(board.entries),
    ]
    for title, entries in (("Blocked", board.blocked), ("Unverified", board.unverified)):
        if entries:
            lines += [f"{title}, not ranked:", "", *(_md_reason(entry) for entry in entries), ""]
    return lines


def _md_row(entry: Entry) -> list[str]:
    robust = f"{percent(entry.robust_acc)} ({percent(entry.robust_low)} to {percent(entry.robust_high)})"
    return [
        f"{'=' if entry.is_tied else ''}{entry.rank}", escape(entry.full_name), percent(entry.clean_acc),
        robust, percent(entry.corruption_acc), percent(entry.source_acc),
        escape(entry.schedule), escape(entry.adversary),
    ]  # fmt: skip


def _md_external_row(entry: ExternalEntry) -> list[str]:
    name = f"*{escape(entry.name)}* ({NOT_MEASURED})"
    return ["–", name, percent(entry.clean_acc), percent(entry.robust_acc), "", "", "", ""]


def _md_external(table: ExternalTable) -> list[str]:
    columns = [
        "model", "clean %", "robust %", "found by", "reported %", "extra data", "architecture", "venue",
        "paper", "note",
    ]  # fmt: skip
    return [
        f"## {NOT_MEASURED.capitalize()}: {escape(table.data_name)}, {escape(table.threat.label)}",
        "",
        f"As {escape(table.publishers)} publishes them, measured on its images with its attacks. "
        "Nothing here is ranked or verified.",
        "",
        *markdown_table(columns, [_md_published(entry) for entry in table.entries], "lrrlrl"),
        "",
    ]


def _md_published(entry: ExternalEntry) -> list[str]:
    extra = "" if entry.extra_data is None else "yes" if entry.extra_data else "no"
    return [
        escape(entry.name), percent(entry.clean_acc), percent(entry.robust_acc), entry.found_by,
        percent(entry.reported_acc), extra, escape(entry.architecture), escape(entry.venue),
        escape(entry.title) + (f" <{entry.link}>" if entry.link else ""), escape(entry.footnote),
    ]  # fmt: skip


def _md_reason(entry: Entry) -> str:
    return f"- {escape(entry.name)}: {escape('; '.join(entry.reasons))}"


def _md_changes(changes: Changes) -> list[str]:
    lines = [f"## Since {escape(changes.since[:10])}", ""]
    if not changes.changes:
        return [*lines, f"All {changes.num_same} models are unchanged.", ""]
    columns = ["", "model", "board", "rank", "robust %", "note"]
    lines += markdown_table(columns, [_md_change(change) for change in changes.changes], "l")
    return [*lines, "", f"{changes.num_same} models are unchanged.", ""]


def _md_change(change: Change) -> list[str]:
    cells = [
        change.kind, change.name, change.board,
        arrow(_rank(change.old_rank), _rank(change.new_rank)),
        arrow(percent(change.old_robust_acc, ""), percent(change.new_robust_acc, "")),
        change.note,
    ]  # fmt: skip
    return list(map(escape, cells))


def arrow(old: str, new: str) -> str:
    """Both where they differ."""
    return new if old in (new, "") else f"{old} → {new or '–'}"


def _rank(rank: int | None) -> str:
    return "" if rank is None else str(rank)


def to_csv(summary: LeaderboardSummary) -> str:
    """One row per entry of every board, those that are not ranked included."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns_of(summary))
    writer.writerows([spreadsheet_cell(value) for value in row] for row in to_rows(summary))
    return buffer.getvalue()


def columns_of(summary: LeaderboardSummary) -> list[str]:
    """The names of what ``to_rows`` gives."""
    further = [name for one in _further(summary) for name in one.names]
    return [*PLACE, *COLUMNS, *further, *_of_slices(summary)]


def _further(summary: LeaderboardSummary) -> list[FurtherColumn]:
    return further_columns(_measured(summary))


def _of_slices(summary: LeaderboardSummary) -> tuple[str, ...]:
    return OF_SLICES if any(map(has_slices, _measured(summary))) else ()


def _measured(summary: LeaderboardSummary) -> Iterator[Entry]:
    for board in summary.boards:
        yield from (*board.entries, *board.blocked, *board.unverified)


def to_rows(summary: LeaderboardSummary) -> list[list[object]]:
    """The values of ``columns_of``, a row per entry; at the end what was not measured here."""
    rows: list[list[object]] = []
    further, of_slices = _further(summary), _of_slices(summary)
    for board in summary.boards:
        place = [
            board.data_name, board.fingerprint, board.threat.norm, board.threat.eps, board.threat.channels,
            board.suite, board.suite_version,
        ]  # fmt: skip
        entries = (*board.entries, *board.blocked, *board.unverified)
        no_more = [None] * len(PUBLISHED)
        rows += [
            [
                *place,
                *(getattr(entry, name) for name in MEASURED),
                *no_more,
                *(value for one in further for value in one.values(entry)),
                *(slice_values(entry) if of_slices else ()),
            ]
            for entry in entries
        ]
    for table in summary.external:
        threat = table.threat
        place = [table.data_name, None, threat.norm, threat.eps, threat.channels, None, None]
        no_further = [None] * (sum(len(one.names) for one in further) + len(of_slices))
        rows += [[*place, *_published(entry), *no_further] for entry in table.entries]
    return rows


def _published(entry: ExternalEntry) -> list[object]:
    known = {
        **{name: getattr(entry, name) for name in ("name", "clean_acc", "robust_acc", *PUBLISHED)},
        "status": NOT_MEASURED,
        "backbone": entry.architecture,
    }
    return [known.get(name) for name in COLUMNS]
