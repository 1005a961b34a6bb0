"""Writing files so that a reader never sees half of one."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.errors import RecordError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file under a temporary name, then rename it over ``path``."""
    temporary = _write_temporary(path, content)
    temporary.replace(path)


def write_once(path: Path, content: bytes | str) -> None:
    """Write a whole file that must not exist yet, safe against concurrent writers.

    Raises:
        RecordError: ``path`` exists; it is left as it was.
    """
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise RecordError(f"{path}: exists already, and is never overwritten") from None
    finally:
        temporary.unlink()


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line and flush it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _write_temporary(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    return temporary
