"""A sweep in W&B, as one run beside those of its trials."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temper.records import LedgerRow
from temper.tracking.wandb_runs import WandbTracker


def track_sweep(
    folder: Path, project: str | None, group: str | None, name: str, rows: Sequence[LedgerRow], page: Path
) -> None:
    """Log the ledger as a table and the report as a page, in the group of the sweep's trials.

    In that group W&B's own parallel coordinates find each trial's settings in its config, by their dotted
    paths, and its accuracies in its summary.
    """
    tracker = WandbTracker(folder, project, group, (), name, {"num_trials": len(rows)}, job_type="sweep")
    columns, cells = ledger_table(rows)
    tracker.table("trials", columns, cells)
    tracker.page("report", page)
    tracker.finish()


def ledger_table(rows: Sequence[LedgerRow]) -> tuple[list[str], list[list[Any]]]:
    """One row per trial: its status, what it varies, its accuracies and its cost; blocks as text."""
    varied = list(dict.fromkeys(name for row in rows for name in row.overrides))
    measured = sorted({name for row in rows for name in row.metrics if name.startswith("best/")})
    columns = ["trial", "status", *varied, *measured, "train_s"]
    cells = [
        [
            row.trial,
            row.status,
            *(_cell(row.overrides.get(name)) for name in varied),
            *(row.metrics.get(name) for name in measured),
            row.cost.get("train_s"),
        ]
        for row in rows
    ]
    # A column of W&B's tables has one type.
    for place in range(len(columns)):
        kinds = {type(cell) for row in cells for cell in [row[place]] if cell is not None}
        if len(kinds) > 1:
            for row in cells:
                row[place] = None if row[place] is None else str(row[place])
    return columns, cells


def _cell(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value.get("kind", value)) if isinstance(value, dict) else str(value)
