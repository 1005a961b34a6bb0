"""Reading an evaluated model: its record, and its outcomes if they are still those of the record."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from temper.errors import RecordError, UsageError
from temper.records import EvaluationRecord, read_outcomes, read_record, record_files, sha256_of

COLUMNS = {"row": "int64", "label": "int64", "correct": "bool", "robust": "bool"}


@dataclass(frozen=True)
class Measured:
    """A record and what it says of each image, all arrays (N,) in the order of ``rows``."""

    path: Path
    record: EvaluationRecord
    rows: np.ndarray
    """The images' numbers in the shards, int64, each once."""
    labels: np.ndarray
    correct: np.ndarray
    robust: np.ndarray


def load_side(path: Path) -> list[Measured]:
    """The model of a record file or a run folder, or every model under another folder.

    Raises:
        UsageError: no such file or folder.
        RecordError: no record here, or one that cannot be read or does not agree with its outcomes.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    own = path / "record.json"
    files = [own] if own.is_file() else record_files(path)
    if not files:
        raise RecordError(f"{path}: no record.json found; create one with `temper evaluate RUN`")
    return [load_measured(file) for file in files]


def load_measured(path: Path) -> Measured:
    """Read a record file and the outcomes that it names.

    Raises:
        RecordError: either is missing or damaged, or they do not agree.
    """
    record = read_record(path)
    if "outcomes" not in record.files:
        raise RecordError(f"{path}: names no outcomes, which a comparison needs; evaluate the run again")
    named = record.files["outcomes"]
    file = path.parent / named.path
    if not file.is_file():
        raise RecordError(f"{file}: no such file, but {path} names it; keep both together")
    if sha256_of(file) != named.sha256:
        raise RecordError(
            f"{file}: not the outcomes that {path} was written with (the SHA-256 differs); "
            "evaluate the run again with --out"
        )
    measured = _read(path, record, file)
    counted = int(measured.correct.sum()), int(measured.robust.sum()), len(measured.rows)
    claimed = record.clean_acc.count, record.robust_acc.count, record.clean_acc.total
    if counted != claimed:
        raise RecordError(
            f"{path}: claims {claimed[0]} images right and {claimed[1]} robust of {claimed[2]}, "
            f"its outcomes say {counted[0]} and {counted[1]} of {counted[2]}; the record was changed"
        )
    return measured


def _read(path: Path, record: EvaluationRecord, file: Path) -> Measured:
    table = read_outcomes(file)
    for name, kind in COLUMNS.items():
        found = str(table[name].type) if name in table.column_names else "missing"
        if found != kind or table[name].null_count:
            raise RecordError(f"{file}: column '{name}' is {found}, expected {kind} without gaps")
    # to_numpy would import pandas, which takes longer than all the rest.
    rows, labels, correct, robust = (
        np.array(table[name].to_pylist(), kind) for name, kind in COLUMNS.items()
    )
    order = np.argsort(rows, kind="stable")
    if len(np.unique(rows)) != len(rows):
        raise RecordError(f"{file}: an image occurs twice")
    num_classes = len(record.data.classes)
    if not np.isin(labels, np.arange(num_classes)).all():
        raise RecordError(f"{file}: a label outside 0..{num_classes - 1}, the classes of {path}")
    return Measured(path, record, rows[order], labels[order], correct[order], robust[order])
