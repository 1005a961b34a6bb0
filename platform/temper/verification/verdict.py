"""``verdict.json`` beside a record: what `temper verify` last said of it, and whether that still holds."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

from temper.errors import RecordError
from temper.records import RunFolder, sha256_of, write_atomic
from temper.records.documents import read_document
from temper.spec import Spec
from temper.storage import UNREAD, mirrored
from temper.verification.evidence import record_of
from temper.verification.record import VerificationRecord


class Verdict(Spec):
    """In short, without paths: it travels with the record."""

    schema_version: Literal[1] = 1
    verified: str
    """UTC, ISO 8601."""
    temper: str
    """The version that verified."""
    depth: Literal["shallow", "deep"]
    passed: bool
    record_sha256: str
    """Of the record file that was verified."""
    checks: list[str]
    failed: list[str]
    not_checked: list[str]

    @classmethod
    def of(cls, found: VerificationRecord, record_sha256: str) -> Self:
        return cls(
            verified=datetime.now(UTC).isoformat(timespec="seconds"),
            temper=version("temper"),
            depth=found.depth,
            passed=found.passed,
            record_sha256=record_sha256,
            checks=[check.name for check in found.checks],
            failed=[check.name for check in found.failed],
            not_checked=[reason.partition(":")[0] for reason in found.not_checked],
        )

    @property
    def has_attacked(self) -> bool:
        """The model was asked and attacked again."""
        return "attacked again" in self.checks


def leave_verdict(path: Path, found: VerificationRecord) -> bool:
    """Keep what was ``found`` beside the record at ``path``, a file or a run folder.

    A shallow check that passed does not replace a deep one of the same record; ``False`` where it would.

    Raises:
        StorageError: the folder cannot be written.
    """
    verdict = Verdict.of(found, sha256_of(record_of(path)))
    with mirrored(path.parent if path.suffix == ".json" else path, without=UNREAD) as folder:
        file = RunFolder(folder).verdict
        earlier, doubt = verdict_beside(record_of(path), file)
        is_deep = earlier is not None and doubt is None and earlier.has_attacked
        if is_deep and verdict.passed and not verdict.has_attacked:
            return False
        write_atomic(file, verdict.model_dump_json(indent=2) + "\n")
    return True


def verdict_beside(record: Path, file: Path | None = None) -> tuple[Verdict | None, str | None]:
    """The verdict beside a record file, and why it does not hold for it; neither where there is none."""
    file = record.with_name("verdict.json") if file is None else file
    if not file.exists():
        return None, None
    try:
        verdict = read_document(Verdict, file, "no verdict")
    except RecordError:
        return None, "verdict.json is not readable"
    if verdict.record_sha256 != sha256_of(record):
        return verdict, "the record was changed after it was verified"
    return verdict, None
