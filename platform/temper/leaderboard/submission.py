"""What ``temper submit-entry`` leaves beside a record: that it was verified, by which checks."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from temper.records import FileRecord, sha256_of
from temper.safe_load import read_json
from temper.spec import Spec
from temper.verification import VerificationRecord

NAME = "entry.json"


class Submission(Spec):
    """``entry.json``: an entry of a board folder."""

    schema_version: Literal[1] = 1
    submitted: str
    """UTC, ISO 8601."""
    record_sha256: str
    files: dict[str, FileRecord]
    """What was copied beside the record."""
    left_out: list[str] = Field(default_factory=list)
    """What the record names and is too large, or not wanted, in a board folder."""
    verification: VerificationRecord
    """Of the record where it was made, with its model and its images."""


def submission_of(record: Path) -> tuple[Submission | None, str | None]:
    """The submission beside a record file, or what is wrong with it; neither where there is none."""
    path = record.with_name(NAME)
    try:
        return Submission.model_validate(read_json(path)), None
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as problem:
        first = str(problem).splitlines()[0]
        return None, f"{NAME} is not readable ({first})"


def doubts_about(submission: Submission, record: Path) -> list[str]:
    """Why the submission does not vouch for the record file beside it; nothing where it does."""
    doubts = []
    if sha256_of(record) != submission.record_sha256:
        doubts.append("record.json was changed after it was submitted (other SHA-256)")
    for file in submission.files.values():
        path = record.parent / file.path
        if not path.is_file():
            doubts.append(f"{file.path} is missing")
        elif sha256_of(path) != file.sha256:
            doubts.append(f"{file.path} was changed after it was submitted (other SHA-256)")
    doubts += [
        f"verification failed: {check.name}: {check.detail}" for check in submission.verification.failed
    ]
    if submission.verification.depth != "deep":
        doubts.append("verified without its model (shallow)")
    return doubts
