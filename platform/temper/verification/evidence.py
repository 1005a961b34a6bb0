"""What a record rests on, read once for all checks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from temper.errors import RecordError, UsageError
from temper.records import (
    EXTERNAL,
    EvaluationRecord,
    SavedImages,
    read_outcomes,
    read_record,
    read_saved_images,
)
from temper.storage import beside, fetched, named

KINDS = {
    "int64": np.int64,
    "bool": np.bool_,
    "float": np.float32,
    "double": np.float64,
    "string": np.object_,
}
"""Column types of PyArrow as numpy has them."""
COLUMNS = {
    "row": np.int64,
    "label": np.int64,
    "prediction": np.int64,
    "correct": np.bool_,
    "robust": np.bool_,
}


@dataclass(frozen=True)
class Evidence:
    """A record, the outcomes of its N images, and its saved adversarial images."""

    path: Path
    """The record file."""
    record: EvaluationRecord
    columns: dict[str, np.ndarray]
    """Column of the outcomes -> (N,)."""
    saved: SavedImages

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def num_images(self) -> int:
        return len(self.columns["row"])


def record_of(path: Path) -> Path:
    """The record file that is meant by a file or a run folder.

    Raises:
        UsageError: no such file or folder.
    """
    path = fetched(path)
    if not path.exists():
        raise UsageError(f"{named(path)}: no such file or folder")
    if not path.is_dir():
        return path
    file, external = path / "record.json", path / EXTERNAL
    return external if external.exists() and not file.exists() else file


def read_evidence(path: Path) -> Evidence:
    """Read what the record file ``path`` names; whether it is what it was is left to the checks.

    Raises:
        RecordError: a record that names no outcomes or saved images, or files that are missing or damaged.
    """
    record = read_record(path)
    for name in ("outcomes", "adversarial"):
        if name not in record.files:
            raise RecordError(
                f"{path}: names no {name}, without which nothing can be checked; evaluate the model again"
            )
    columns = read_evidence_columns(
        beside(path.parent, record.files["outcomes"].path), len(record.data.classes)
    )
    saved = read_saved_images(beside(path.parent, record.files["adversarial"].path))
    return Evidence(path, record, columns, saved)


def read_evidence_columns(path: Path, num_classes: int) -> dict[str, np.ndarray]:
    """The columns of an outcomes file.

    Raises:
        RecordError: missing or damaged, without a column that all have, or of other classes.
    """
    table = read_outcomes(path)
    columns: dict[str, np.ndarray] = {}
    for name in table.column_names:
        kind = str(table[name].type)
        if kind not in KINDS or table[name].null_count:
            raise RecordError(f"{path}: column '{name}' is {kind}, or has gaps")
        # to_numpy would import pandas, which takes longer than all the rest.
        columns[name] = np.array(table[name].to_pylist(), KINDS[kind])
    for name, expected in COLUMNS.items():
        if name not in columns or columns[name].dtype != expected:
            raise RecordError(f"{path}: no column '{name}' of {np.dtype(expected).name}")
    if table.num_rows == 0:
        raise RecordError(f"{path}: no images")
    if not np.isin(columns["label"], np.arange(num_classes)).all():
        raise RecordError(f"{path}: a label outside 0..{num_classes - 1}, the classes of the record")
    return columns
