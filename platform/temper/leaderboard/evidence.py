"""What a record rests on: the answers to single images, if they are still those of the record."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from temper.errors import RecordError
from temper.records import EvaluationRecord, read_columns, sha256_of

COLUMNS = ("row", "label", "correct", "robust")


@dataclass(frozen=True)
class Answers:
    """What one model did on its N images, in the order of their numbers in the shards."""

    images: str
    """A digest of the images' numbers and labels: two models with the same one are compared in pairs."""
    robust: np.ndarray
    """(N,) bool: right under the worst attack."""


def read_answers(path: Path, record: EvaluationRecord) -> Answers | None:
    """The outcomes beside the record file ``path``; ``None`` where there are none.

    Raises:
        RecordError: they are not what the record was written with, or do not say what it says.
    """
    named = record.files.get("outcomes")
    if named is None or "\0" in named.path:
        return None
    file = path.parent / named.path
    if not file.is_file():
        return None
    if sha256_of(file) != named.sha256:
        raise RecordError(
            f"{file.name} is not the file that the record was written with (the SHA-256 differs)"
        )
    columns = read_columns(file, COLUMNS)
    rows, correct, robust = columns["row"], columns["correct"], columns["robust"]
    if correct.dtype != bool or robust.dtype != bool or len(np.unique(rows)) != len(rows):
        raise RecordError(f"{file.name} is not a table with one row per image")
    _check_counts(record, int(correct.sum()), int(robust.sum()), len(rows))
    order = np.argsort(rows, kind="stable")
    images = hashlib.sha256(rows[order].tobytes() + columns["label"][order].tobytes()).hexdigest()
    return Answers(images, robust[order])


def _check_counts(record: EvaluationRecord, correct: int, robust: int, total: int) -> None:
    for name, claimed, found in (
        ("clean accuracy", record.clean_acc, correct),
        ("robust accuracy", record.robust_acc, robust),
    ):
        if (claimed.count, claimed.total) != (found, total) or abs(claimed.value - found / total) > 1e-9:
            raise RecordError(
                f"the record claims {name} {claimed.value:.4f} ({claimed.count} of {claimed.total} images), "
                f"its outcomes say {found} of {total}"
            )
