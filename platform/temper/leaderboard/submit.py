"""Letting an entry into a board folder, and checking the entries that are there.

A board folder holds one folder per entry, small enough for git: the record, the files that it rests on but
for the weights, and ``entry.json``, which says what was checked.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from temper.errors import RecordError, UsageError
from temper.leaderboard.collect import FoundRecord, read_found
from temper.leaderboard.evidence import read_answers
from temper.leaderboard.external import external_problems
from temper.leaderboard.submission import NAME, Submission, doubts_about, submission_of
from temper.records import EXTERNAL, FileRecord, sha256_of, write_once
from temper.verification import VerificationRecord, check_record, record_of

COPIED = ("outcomes", "adversarial", "chunks", "recipe", "figure", "mistakes")
MAX_FILE_BYTES = 20_000_000
"""Of one file: a board folder is meant for git."""

Verify = Callable[[Path], VerificationRecord]


def submit_entry(record: Path, board: Path, verify: Verify) -> tuple[Path, Submission]:
    """Copy a record and its small files into ``board``, if ``verify`` finds nothing wrong with it.

    The entry's folder, and what was written into its ``entry.json``.

    Raises:
        UsageError: no such record, or a board that is a file.
        RecordError: a record that is blocked, tampered with or on the board already, or that cannot be
            verified with its model.
    """
    path = record_of(record)
    if board.exists() and not board.is_dir():
        raise UsageError(f"{board}: is a file; a board is a folder")
    found = read_found(path)
    _refuse_blocked(found)
    _refuse_duplicate(found, board)
    verification = verify(path)
    _refuse_unverified(path, verification)
    board.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=board, prefix=".") as temporary:
        made = Path(temporary) / "entry"
        submission = _fill(made, found, verification)
        target = board / found.slug
        try:
            made.rename(target)
        except OSError:
            raise RecordError(f"{target}: already exists; an entry is never overwritten") from None
    return target, submission


def check_board(board: Path) -> dict[str, list[str]]:
    """Entry -> what is wrong with it, for every folder and record of a board; all without the models.

    Raises:
        UsageError: no such folder.
    """
    if not board.is_dir():
        raise UsageError(f"{board}: no such folder")
    problems: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for folder in sorted(path for path in board.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if is_external(folder):
            problems[folder.name] = external_problems(folder)
        else:
            problems[folder.name] = list(_entry_problems(folder / "record.json", seen))
    return problems


def is_external(folder: Path) -> bool:
    """Whether an entry of a board was published elsewhere, so that there is nothing to verify."""
    return (folder / EXTERNAL).exists() and not (folder / "record.json").exists()


def _entry_problems(path: Path, seen: dict[str, str]) -> Iterator[str]:
    try:
        found = read_found(path)
    except RecordError as problem:
        yield str(problem)
        return
    submission, doubt = submission_of(path)
    if submission is None:
        yield doubt or f"no {NAME}: it did not come through `temper submit-entry`"
        return
    yield from doubts_about(submission, path)
    if path.parent.name != found.slug:
        yield f"the folder should be named {found.slug}"
    for key in _identities(found):
        if key in seen:
            yield f"the same as {seen[key]}"
        seen[key] = path.parent.name
    left_out = {f"file {name}" for name in submission.left_out}
    left_out |= {"recipe"} & set(submission.left_out)  # the check looks for it beside the record
    for check in check_record(path):
        if not check.passed and check.name not in left_out:
            yield f"{check.name}: {check.detail}"


def _refuse_blocked(found: FoundRecord) -> None:
    failed = [f"{gate.name}: {gate.detail}" for gate in found.record.gates if not gate.passed]
    if found.record.status == "blocked" or failed:
        raise RecordError(
            f"{found.path}: blocked, so no board accepts it ({'; '.join(failed) or 'no reason given'})"
        )


def _refuse_duplicate(found: FoundRecord, board: Path) -> None:
    own = _identities(found)
    for path in sorted(board.glob("*/record.json")):
        try:
            other = read_found(path)
        except RecordError:
            continue  # `temper check-board` tells
        if own & _identities(other):
            raise RecordError(f"{found.path}: already on the board, as {path.parent.name}")


def _identities(found: FoundRecord) -> set[str]:
    """By what a record is known again: all it says, and its outcomes within its threat model."""
    record = found.record
    identities = {found.digest}
    if "outcomes" in record.files:
        identities.add(f"{record.files['outcomes'].sha256} {record.threat.label} {record.suite.hash}")
    return identities


def _refuse_unverified(path: Path, verification: VerificationRecord) -> None:
    if not verification.passed:
        listed = "; ".join(f"{check.name}: {check.detail}" for check in verification.failed)
        raise RecordError(f"{path}: verification failed ({listed})")
    if not any(check.name == "attacked again" for check in verification.checks):
        raise RecordError(
            f"{path}: cannot be verified with its model ({'; '.join(verification.not_checked[:1])}); "
            "a board accepts only what was attacked again"
        )


def _fill(folder: Path, found: FoundRecord, verification: VerificationRecord) -> Submission:
    """Copy what an entry consists of, and see that it is still what the record names."""
    record, files = found.record, {}
    folder.mkdir()
    shutil.copyfile(found.path, folder / "record.json")
    for name in (*COPIED, *(f"outcomes of {one.name}" for one in record.tests)):
        file = record.files.get(name)
        if file is None or not _fits(found.path.parent, file):
            continue
        place = folder / file.path
        shutil.copyfile(found.path.parent / file.path, place)
        if sha256_of(place) != file.sha256:
            raise RecordError(f"{found.path}: {file.path} changed while it was copied")
        files[name] = file
    submission = Submission(
        submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        record_sha256=sha256_of(folder / "record.json"),
        files=files,
        left_out=sorted(set(record.files) - set(files)),
        verification=verification.model_copy(update={"record": "record.json"}),
    )
    read_answers(folder / "record.json", record)
    write_once(folder / NAME, submission.model_dump_json(indent=2) + "\n")
    return submission


def _fits(folder: Path, file: FileRecord) -> bool:
    is_beside = Path(file.path).name == file.path  # not the recipe or the figure of a run elsewhere
    return is_beside and (folder / file.path).stat().st_size <= MAX_FILE_BYTES
