"""Reading a sweep's folder: finished, running, or cut short."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from temper.errors import RecordError, TemperError
from temper.records import (
    EvaluationRecord,
    LedgerRow,
    RunFolder,
    SweepFolder,
    SweepRecord,
    read_ledger,
    read_record,
)
from temper.safe_load import read_json
from temper.spec import read_yaml

BASELINE: Final = "baseline"
"""The trial that is trained beside the search, for comparison."""
CLEAN: Final = "val/target/clean_acc"
ROBUST: Final = "val/target/robust_acc"
SOURCE: Final = "val/source/clean_acc"


@dataclass(frozen=True)
class Gathered:
    """All that a report is made of."""

    folder: SweepFolder
    rows: list[LedgerRow]
    """One per trial, by name."""
    record: SweepRecord | None
    """``None`` while the sweep runs, and where it was cut short."""
    recipe: Mapping[str, Any]
    """The recipe that was varied; empty where it cannot be read."""
    space: Mapping[str, Any]
    """Empty where it cannot be read."""
    evaluations: Mapping[str, EvaluationRecord]
    """Of the trials that were evaluated with the suite."""
    problems: list[str]
    """What could not be read, for people."""

    @property
    def metric(self) -> str:
        """What the sweep searched by."""
        if self.record is not None:
            return self.record.metric
        return str(self.space.get("metric", ROBUST))

    def is_log(self, path: str) -> bool:
        """Whether a parameter was drawn on a logarithmic scale."""
        parameters = self.space.get("parameters")
        drawn = parameters.get(path) if isinstance(parameters, dict) else None
        return isinstance(drawn, dict) and any("log" in str(name) for name in drawn)


def gather(path: Path) -> Gathered:
    """Read the sweep in the folder ``path``.

    Raises:
        RecordError: no ledger there, or one that is damaged.
    """
    folder = SweepFolder(path)
    if not folder.ledger.exists():
        raise RecordError(
            f"{folder.ledger}: no such ledger; create one with `temper sweep RECIPE SPACE --out OUT`"
        )
    # A trial that was taken up again has its last row.
    rows = {row.trial: row for row in read_ledger(folder.ledger)}
    problems: list[str] = []
    return Gathered(
        folder=folder,
        rows=[rows[name] for name in sorted(rows)],
        record=_record(folder.summary, problems),
        recipe=_yaml(folder.recipe, problems),
        space=_yaml(folder.space, problems),
        evaluations=_evaluations(folder, sorted(rows), problems),
        problems=problems,
    )


def run_of(folder: SweepFolder, trial: str) -> RunFolder | None:
    """A trial's folder, where its name is the name of a folder."""
    return folder.trial(trial) if trial not in ("", ".", "..") and Path(trial).name == trial else None


def _record(path: Path, problems: list[str]) -> SweepRecord | None:
    if not path.exists():
        return None
    try:
        return SweepRecord.model_validate(read_json(path))
    except (OSError, ValueError) as problem:  # pydantic's, too
        problems.append(f"{path.name}: cannot be read ({_first_line(problem)})")
        return None


def _yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except TemperError as problem:
        problems.append(_without_folder(problem, path))
        return {}


def _evaluations(folder: SweepFolder, trials: list[str], problems: list[str]) -> dict[str, EvaluationRecord]:
    found = {}
    for trial in trials:
        run = run_of(folder, trial)
        if run is None or not run.record.exists():
            continue
        try:
            found[trial] = read_record(run.record)
        except RecordError as problem:
            problems.append(_without_folder(problem, run.record))
    return found


def _without_folder(problem: Exception, path: Path) -> str:
    """Where the sweep lies says nothing about it, and would make pages of copies differ."""
    return _first_line(problem).replace(
        str(path), "/".join(path.parts[-3:]) if "trials" in path.parts[-3:] else path.name
    )


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0]
