"""Writing files so that a reader never sees half of one."""

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from temper.errors import RecordError, StorageError
from temper.safe_load import MAX_JSON_BYTES, parse_json, read_regular


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex digits.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which may have no end.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file under a temporary name, then rename it over ``path``.

    Raises:
        StorageError: a full disk, or no permission; ``path`` is as it was.
    """
    temporary = _write_temporary(path, content)
    with _telling(path):
        try:
            temporary.replace(path)
        except OSError:
            temporary.unlink()
            raise


def write_once(path: Path, content: bytes | str) -> None:
    """Write a whole file that must not exist yet, safe against concurrent writers.

    Raises:
        RecordError: ``path`` exists; it is left as it was.
        StorageError: a full disk, or no permission.
    """
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise RecordError(f"{path}: already exists, and is never overwritten") from None
    finally:
        temporary.unlink()


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line, whole or not at all, and flush it to the disk.

    Raises:
        StorageError: a full disk, or no permission.
    """
    line = json.dumps(row, allow_nan=False) + "\n"
    with _telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                left = memoryview(line.encode())
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # half a line spoils the next
                    file.truncate(before)
                raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that ``append_line`` wrote, each of an ``epoch``; ``[]`` where there is no file.

    What is no such line, as the last of a process that was killed, is left out.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        content = read_regular(path, max(path.stat().st_size, MAX_JSON_BYTES))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as problem:
        raise StorageError(f"{path}: cannot be read ({problem}); remove it") from None
    rows = []
    for line in content.split(b"\n"):  # not at line ends that are only those of Unicode
        with suppress(ValueError):
            row = parse_json(line)
            if isinstance(row, dict) and isinstance(row.get("epoch"), int):
                rows.append(row)
    return rows


def count_from_one(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line for a log of epochs, where they count from 1; in ``row``, as everywhere in code, from 0.

    ``first_epoch`` tells it from the lines of earlier versions, which count from 0.
    """
    return {**row, "epoch": row["epoch"] + 1, "first_epoch": 1}


def count_from_zero(line: Mapping[str, Any]) -> dict[str, Any]:
    """The row that became ``line``, which any version has written."""
    row = {name: value for name, value in line.items() if name != "first_epoch"}
    return row | {"epoch": line["epoch"] - (line.get("first_epoch") == 1)}


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The rows of a log of epochs that any version has written, counted from 0.

    Raises:
        StorageError: it cannot be read.
    """
    return [count_from_zero(line) for line in read_rows(path)]


def _write_temporary(path: Path, content: bytes | str) -> Path:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with _telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # half a file takes the room that is missing
                temporary.unlink()
            raise
    return temporary


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Name the file in errors of the disk, which themselves name none."""
    try:
        yield
    except OSError as problem:
        raise StorageError(
            f"{path}: cannot be written ({problem.strerror}); the previous content is intact: free space "
            "or fix permissions, and run the same command again"
        ) from problem
