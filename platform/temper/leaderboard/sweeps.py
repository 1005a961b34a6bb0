"""Sweeps under a folder, as far as they are: for the live page, beside the boards and never on them."""

from pathlib import Path

from temper.errors import RecordError
from temper.records import LedgerRow, SweepFolder, read_ledger
from temper.spec import Spec

NUM_BEST = 5
ROBUST, CLEAN = "best/val/target/robust_acc", "best/val/target/clean_acc"


class LeadingTrial(Spec):
    """One of the best trials so far, by validation images: accuracies 0..1."""

    trial: str
    status: str
    clean_acc: float | None
    robust_acc: float | None


class SweepNews(Spec):
    """How far a sweep is."""

    name: str
    num_ended: int
    num_finished: int
    num_stopped: int
    num_failed: int
    is_running: bool
    best: list[LeadingTrial]
    report: str | None
    """Its page, relative to the folder."""


def find_sweeps(folder: Path) -> list[Path]:
    """Folders with a ledger, hidden ones left out."""
    return sorted(
        path.parent
        for path in folder.rglob("ledger.jsonl")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def news_of(sweep: Path, folder: Path) -> SweepNews | None:
    """What the ledger of ``sweep`` says; ``None`` where it cannot be read."""
    paths = SweepFolder(sweep)
    try:
        rows = read_ledger(paths.ledger)
    except RecordError:
        return None
    count = {
        status: sum(row.status == status for row in rows) for status in ("finished", "stopped", "failed")
    }
    page = paths.report / "sweep.html"
    return SweepNews(
        name=sweep.resolve().name,
        num_ended=len(rows),
        num_finished=count["finished"],
        num_stopped=count["stopped"],
        num_failed=count["failed"],
        is_running=not paths.summary.exists(),
        best=[_leading(row) for row in sorted(rows, key=_order)[:NUM_BEST] if row.status != "failed"],
        report=page.relative_to(folder).as_posix() if page.exists() else None,
    )


def _order(row: LedgerRow) -> tuple[float, str]:
    return -row.metrics.get(ROBUST, row.metrics.get(CLEAN, -1.0)), row.trial


def _leading(row: LedgerRow) -> LeadingTrial:
    return LeadingTrial(
        trial=row.trial,
        status=row.status,
        clean_acc=row.metrics.get(CLEAN),
        robust_acc=row.metrics.get(ROBUST),
    )
