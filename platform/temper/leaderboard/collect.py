"""Finding records under the paths that a user gives.

This is the one place that turns what a user names into files; what lies in S3 was copied before (``remote``).
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from temper.errors import RecordError, UsageError
from temper.records import (
    EXTERNAL,
    CrossvalRecord,
    EvaluationRecord,
    ExternalRecord,
    external_files,
    read_crossval,
    read_external,
    read_record,
    record_files,
)
from temper.spec import Spec

SLUG_CHARACTERS = 40


@dataclass(frozen=True)
class FoundRecord:
    """A record and the file that it was read from."""

    path: Path
    record: EvaluationRecord
    digest: str
    """SHA-256 of what the record says, whatever its white space."""

    @property
    def slug(self) -> str:
        """A file name for the model: readable, and its own."""
        return slug_of(self.record.name, self.digest)


@dataclass(frozen=True)
class FoundExternal:
    """An external record and the file that it was read from."""

    path: Path
    record: ExternalRecord


def slug_of(name: str, digest: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_CHARACTERS].strip("-")
    return f"{words or 'model'}-{digest[:8]}"


class Problem(Spec):
    """A record file that is on no board, and why."""

    path: str
    reason: str


@dataclass
class Collected:
    """What lies under the paths of a user."""

    records: list[FoundRecord] = field(default_factory=list)
    external: list[FoundExternal] = field(default_factory=list)
    """Published elsewhere, not measured here."""
    crossvals: list[tuple[Path, CrossvalRecord]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add_problem(self, path: Path, reason: str) -> None:
        self.problems.append(Problem(path=str(path), reason=reason.removeprefix(f"{path}: ")))


def collect(results: Sequence[Path]) -> Collected:
    """Every record in run folders, sweep folders, or any folders, and the files that are none.

    Raises:
        UsageError: a path that does not exist, or that is not on this machine.
        RecordError: no record file at all.
    """
    for path in results:
        locate(path)
    files = _unique(file for path in results for file in record_files(path) if file.name != EXTERNAL)
    external = _unique(file for path in results for file in external_files(path))
    if not files and not external:
        listed = ", ".join(map(str, results))
        raise RecordError(f"{listed}: no record.json found; create one with `temper evaluate RUN`")
    collected = Collected()
    _read_records(files, collected)
    _read_external(external, collected)
    _read_crossvals(results, collected)
    return collected


def locate(path: Path) -> Path:
    """A path of this machine that exists.

    Raises:
        UsageError: it does not, or it lies elsewhere.
    """
    scheme = re.match(r"[a-z][a-z0-9+.-]+:/", str(path))
    if scheme:
        raise UsageError(f"{path}: only local paths and s3:// are read; copy the records here first")
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    return path


def _unique(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(Path(os.path.realpath(path)) for path in paths))  # also of a circle of links


def read_found(path: Path) -> FoundRecord:
    """Read one record file.

    Raises:
        RecordError: it is no record.
    """
    record = read_record(path)
    return FoundRecord(path, record, hashlib.sha256(record.model_dump_json().encode()).hexdigest())


def _read_records(files: Sequence[Path], collected: Collected) -> None:
    seen: dict[str, Path] = {}
    for path in files:
        found = _try(read_found, path, collected)
        if found is None:
            continue
        if found.digest in seen:
            collected.add_problem(path, f"the same record as {seen[found.digest]}")
            continue
        seen[found.digest] = path
        collected.records.append(found)


def _read_external(files: Sequence[Path], collected: Collected) -> None:
    seen: dict[tuple[str, str, str], Path] = {}
    for path in files:
        record = _try(read_external, path, collected)
        if record is None:
            continue
        key = record.name, record.data_name, record.threat.label
        if key in seen:
            collected.add_problem(path, f"the same model, data set and threat model as {seen[key]}")
            continue
        seen[key] = path
        collected.external.append(FoundExternal(path, record))


def _read_crossvals(results: Sequence[Path], collected: Collected) -> None:
    folders = [path for path in results if path.is_dir()]
    found = (file for folder in folders for file in folder.rglob("crossval.json"))
    for path in _unique(sorted(found)):
        crossval = _try(read_crossval, path, collected)
        if crossval is not None:
            collected.crossvals.append((path, crossval))


Record = TypeVar("Record")


def _try(read: Callable[[Path], Record], path: Path, collected: Collected) -> Record | None:
    try:
        return read(path)
    except RecordError as problem:
        collected.add_problem(path, str(problem))
        return None
