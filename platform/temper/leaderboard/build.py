"""Building the board's files."""

import uuid
from collections.abc import Sequence
from pathlib import Path

from temper.leaderboard.boards import rank
from temper.leaderboard.changes import compare_boards, read_old
from temper.leaderboard.collect import Collected, collect
from temper.leaderboard.exports import to_csv, to_markdown
from temper.leaderboard.external import external_tables
from temper.leaderboard.page import render_cards, render_index
from temper.leaderboard.remote import fetch, is_remote
from temper.leaderboard.summary import CrossvalSummary, LeaderboardSummary, json_schema
from temper.leaderboard.sweeps import SweepNews
from temper.records import CrossvalRecord, write_atomic

MADE_BY_US = '<meta name="generator" content="temper">'


def build_leaderboard(
    results: Sequence[Path],
    out: Path,
    *,
    old: Path | None = None,
    require_verified: bool = False,
    is_live: bool = False,
    sweeps: Sequence[SweepNews] = (),
) -> LeaderboardSummary:
    """Write the page, a card for each model, and leaderboard.md, .csv, .json and .schema.json into ``out``.

    ``results`` are folders and record files of this machine or in S3, ``s3://bucket/prefix``. The same
    records give the same files, byte for byte. ``old`` is an older leaderboard.json, from which
    what rose and fell is told. ``require_verified`` ranks only what `temper submit-entry` let in. A live
    page asks its server for news of itself, and tells how far ``sweeps`` are.

    Raises:
        UsageError: a path that does not exist.
        RecordError: no record at all, or an ``old`` that is no leaderboard.
    """
    before = read_old(old) if old is not None else None
    collected = collect([fetch(path, out / "remote") if is_remote(path) else path for path in results])
    boards = rank(collected.records, require_verified=require_verified)
    summary = LeaderboardSummary(
        as_of=max((found.record.created for found in collected.records), default=""),
        boards=boards,
        external=external_tables(collected.external),
        crossvals=[_crossval(path, record) for path, record in collected.crossvals],
        changes=compare_boards(before, boards) if before is not None else None,
        skipped=collected.problems,
    )
    _write_cards(summary, collected, out / "models", is_live)
    write_atomic(out / "leaderboard.md", to_markdown(summary))
    write_atomic(out / "leaderboard.csv", to_csv(summary))
    write_atomic(out / "leaderboard.json", summary.model_dump_json(indent=2) + "\n")
    write_atomic(out / "leaderboard.schema.json", json_schema())
    write_atomic(out / "index.html", render_index(summary, is_live=is_live, sweeps=sweeps))
    return summary


def _write_cards(summary: LeaderboardSummary, collected: Collected, folder: Path, is_live: bool) -> None:
    """Write the cards that are new or changed, and remove those of models that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = set()
    for name, page in render_cards(summary.boards, collected.records, folder, is_live=is_live):
        kept.add(name)
        _write_if_new(folder / name, page.encode())
    for path in folder.glob("*.html"):
        if path.name not in kept and MADE_BY_US in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            path.unlink()


def _write_if_new(path: Path, content: bytes) -> None:
    """Without waiting for the disk, as ``write_atomic`` does: a thousand cards would take seconds."""
    if path.is_file() and path.read_bytes() == content:
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _crossval(path: Path, record: CrossvalRecord) -> CrossvalSummary:
    robust: dict[str, list[float | None]] = {}
    for target in record.targets:
        folds = [[] for _ in range(record.folds)]  # type: list[list[float]]
        for run in record.runs:
            if run.target == target.target and run.status == "ok" and run.robust_acc is not None:
                folds[run.fold].append(run.robust_acc)
        robust[target.target] = [sum(values) / len(values) if values else None for values in folds]
    return CrossvalSummary(
        path=str(path),
        name=record.name,
        created=record.created,
        threat=record.threat,
        folds=record.folds,
        seeds=record.seeds,
        targets=record.targets,
        over_targets=record.over_targets,
        robust=robust,
    )
