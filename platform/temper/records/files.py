"""Writing files so that a reader never sees half of one."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from temper.errors import RecordError, StorageError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Append one JSON line and flush it to the disk.

    Raises:
        StorageError: a full disk, or no permission.
    """
    line = json.dumps(row, allow_nan=False) + "\n"
    with _telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


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
