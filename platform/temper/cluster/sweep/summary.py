"""``sweep.json``: the summary of a sweep."""

from collections.abc import Sequence

from temper.cluster.sweep.trial_store import TrialStore
from temper.recipe import Recipe
from temper.records import (
    LedgerRow,
    ProxyAgreement,
    SweepFolder,
    SweepRecord,
    read_record,
    write_atomic,
)
from temper.safe_load import read_json
from temper.search import BASELINE, front_of
from temper.tradeoff import rank_agreement


def read_summary(folder: SweepFolder) -> SweepRecord | None:
    """The summary of a sweep that has ended; ``None`` if there is none, or it cannot be read."""
    try:
        return SweepRecord.model_validate(read_json(folder.summary))
    except (OSError, ValueError):
        return None


def write_summary(book: TrialStore, recipe: Recipe, finalists: Sequence[str], seconds: float) -> SweepRecord:
    """Write it from the ledger and the finalists' records."""
    rows = list(book.rows.values())
    count = {
        status: sum(row.status == status for row in rows) for status in ("finished", "stopped", "failed")
    }
    front, volume = front_of(rows, book.space)
    record = SweepRecord(
        name=recipe.name,
        metric=book.space.metric,
        num_trials=len(rows),
        num_finished=count["finished"],
        num_stopped=count["stopped"],
        num_failed=count["failed"],
        finalists=list(finalists),
        best=finalists[0],
        seconds=seconds,
        objectives=book.space.all_objectives,
        front=front,
        hypervolume=volume,
        proxy=_agreement(book, rows, finalists),
        is_complete=book.is_finished,
    )
    write_atomic(book.folder.summary, record.model_dump_json(indent=2) + "\n")
    return record


def _agreement(
    book: TrialStore, rows: Sequence[LedgerRow], finalists: Sequence[str]
) -> ProxyAgreement | None:
    """How well the cheap metric ranks the finalists as the suite does; only for robust metrics."""
    if "robust" not in book.space.metric:
        return None
    metric = f"best/{book.space.metric}"
    cheap = {row.trial: row.metrics[metric] for row in rows if metric in row.metrics}
    names = [name for name in finalists if name != BASELINE and name in cheap]
    if len(names) < 2:
        return None
    suite = [read_record(book.folder.trial(name).record).robust_acc.value for name in names]
    return rank_agreement([cheap[name] for name in names], suite)
