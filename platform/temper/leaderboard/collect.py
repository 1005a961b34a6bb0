"""Finding records under the paths that a user gives."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from temper.errors import RecordError, UsageError
from temper.records import EvaluationRecord, read_record, record_files


@dataclass(frozen=True)
class Found:
    """A record and the file that it was read from."""

    path: Path
    record: EvaluationRecord


@dataclass(frozen=True)
class Problem:
    """A record file that is not on the board, and why."""

    path: Path
    reason: str


def collect(results: Sequence[Path]) -> tuple[list[Found], list[Problem]]:
    """Every record in run folders, sweep folders, or any folders, and the files that are none.

    Raises:
        UsageError: a path that does not exist.
        RecordError: no record file at all.
    """
    files: dict[Path, None] = {}
    for path in results:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        for file in record_files(path):
            files[file.resolve()] = None
    if not files:
        listed = ", ".join(map(str, results))
        raise RecordError(f"{listed}: no record.json found; `temper evaluate RUN` makes one")
    return _read(list(files))


def _read(files: list[Path]) -> tuple[list[Found], list[Problem]]:
    found: list[Found] = []
    problems: list[Problem] = []
    seen: dict[str, Path] = {}
    for path in files:
        try:
            record = read_record(path)
        except RecordError as problem:
            problems.append(Problem(path, str(problem).removeprefix(f"{path}: ")))
            continue
        digest = hashlib.sha256(record.model_dump_json().encode()).hexdigest()
        if digest in seen:
            problems.append(Problem(path, f"the same record as {seen[digest]}"))
            continue
        seen[digest] = path
        found.append(Found(path, record))
    return found, problems
