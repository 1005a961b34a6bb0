"""What a sweep remembers: one row per ended trial, and a summary."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from temper.errors import RecordError
from temper.spec import Spec


class LedgerRow(Spec):
    """One ended trial of a sweep."""

    trial: str
    recipe_hash: str
    status: Literal["finished", "stopped", "failed"]
    overrides: dict[str, Any]
    metrics: dict[str, float]
    cost: dict[str, float]
    error: str | None = None


class SweepRecord(Spec):
    """``sweep.json``: a finished sweep in short."""

    schema_version: Literal[1] = 1
    name: str
    metric: str
    num_trials: int
    num_finished: int
    num_stopped: int
    num_failed: int
    finalists: list[str]
    best: str | None
    seconds: float


def read_ledger(path: Path) -> list[LedgerRow]:
    """The rows of a ledger; a last line cut short by a crash is left out.

    Raises:
        RecordError: any other line is not a row.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(LedgerRow.model_validate(json.loads(line)))
        except (json.JSONDecodeError, ValidationError) as problem:
            if number == len(lines) and not text.endswith("\n"):
                break
            raise RecordError(f"{path}, line {number}: not a ledger row ({problem})") from None
    return rows
