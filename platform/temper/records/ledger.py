"""What a sweep remembers: one row per ended trial, and a summary."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from temper.errors import DivergenceError, RecordError
from temper.safe_load import MAX_JSON_BYTES, parse_json, read_regular
from temper.spec import Spec, first_problem


class LedgerRow(Spec):
    """One ended trial of a sweep."""

    trial: str
    recipe_hash: str
    status: Literal["finished", "stopped", "failed"]
    overrides: dict[str, Any]
    metrics: dict[str, float]
    """Of its last epoch (``train/``, ``val/``, ``epoch``), and of its best (``best/``)."""
    cost: dict[str, float]
    error: str | None = None
    """Why it failed."""
    reason: str | None = None
    """Who stopped it, or what else is to be known of its way."""

    @property
    def has_diverged(self) -> bool:
        """Whether it failed because its loss or its weights were not finite."""
        return (self.error or "").startswith(f"{DivergenceError.__name__}: ")


class ProxyAgreement(Spec):
    """How well the metric that the sweep searched by ranks the models that were evaluated with the suite."""

    num_models: int
    kendall: float
    """Kendall's tau-b of validation metric and robust accuracy under the suite, -1..1."""
    spearman: float
    warning: str | None
    """Why the ranking by the cheap metric is not to be relied on, where it is not."""


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
    """Trials that were evaluated with the suite, the baseline among them; best first by the metric."""
    best: str | None
    seconds: float
    """Of all sessions together."""
    objectives: list[str] = Field(default_factory=list)
    """Maximised together; the first is ``metric``."""
    front: list[str] = Field(default_factory=list)
    """Finished trials of which none other is at least as good in all objectives and better in one."""
    hypervolume: float | None = None
    """Share 0..1 of the unit cube that the front dominates, from the origin."""
    proxy: ProxyAgreement | None = None
    is_complete: bool = True
    """False where time ran out before all trials were run."""


def read_ledger(path: Path) -> list[LedgerRow]:
    """The rows of a ledger; a last line cut short by a crash is left out.

    Raises:
        RecordError: any other line is not a row.
    """
    if not path.exists():
        return []
    try:
        content = read_regular(path, MAX_JSON_BYTES)
    except OSError as problem:
        raise RecordError(f"{path}: cannot be read ({problem.strerror})") from None
    except ValueError as problem:
        raise RecordError(f"{path}: cannot be read ({problem})") from None
    lines = content.split(b"\n")  # not at line ends that are only those of Unicode
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(LedgerRow.model_validate(parse_json(line)))
        except ValueError as problem:  # pydantic's, too
            if number == len(lines):
                break
            raise RecordError(f"{path}, line {number}: not a ledger row ({first_problem(problem)})") from None
    return rows
