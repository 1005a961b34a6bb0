"""Which files of a folder are meant, and who wrote them last."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.addresses import cache_folder
from temper.errors import StorageError

MARKER = ".writer"
"""In a folder and in its address: a token of whoever began to write there last."""


@dataclass(frozen=True)
class Scope:
    """Files of a folder, by their names relative to it; hidden ones never count."""

    without: frozenset[str] = frozenset()
    """Folders, at any depth, that are left out."""
    is_flat: bool = False
    """Leave out all folders."""
    names: frozenset[str] | None = None
    """Of files, without their folders; ``None``: any."""

    def holds(self, name: str) -> bool:
        *folders, last = name.split("/")
        if any(part.startswith(".") for part in (*folders, last)):
            return False
        if self.without.intersection(folders) or (self.is_flat and folders):
            return False
        return self.names is None or last in self.names

    def covers(self, other: "Scope") -> bool:
        """Whether each file of ``other`` is one of these; of scopes without ``names``."""
        return self.without <= other.without and (other.is_flat or not self.is_flat)


@dataclass(frozen=True)
class Marker:
    """What the local ``.writer`` says: the token that was put into the storage, and what is complete here."""

    token: str
    scope: Scope

    def to_json(self) -> bytes:
        document = {"token": self.token, "without": sorted(self.scope.without), "is_flat": self.scope.is_flat}
        return json.dumps(document).encode()

    @classmethod
    def read(cls, folder: Path) -> "Marker | None":
        """That of a local folder; ``None`` where there is none that can be read."""
        try:
            document: Mapping[str, Any] = json.loads((folder / MARKER).read_bytes())
            scope = Scope(frozenset(document["without"]), bool(document["is_flat"]))
            return cls(str(document["token"]), scope)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def token_of(content: bytes | None) -> str | None:
        """The token of a ``.writer`` in the storage."""
        try:
            return None if content is None else str(json.loads(content)["token"])
        except (ValueError, KeyError, TypeError):
            return None


Stamp = tuple[int, int, int]
"""Size, time of change, inode."""
SYNCED = ".synced.json"
"""In a folder that nobody writes: its files as they were when the last of them had been copied."""


def read_synced(folder: Path) -> dict[str, Stamp] | None:
    """What its last writer on this machine had copied; ``None`` where that did not come to its end."""
    try:
        document = json.loads((folder / SYNCED).read_bytes())
        return {str(name): (int(one[0]), int(one[1]), int(one[2])) for name, one in document.items()}
    except (OSError, ValueError, AttributeError, IndexError, TypeError):
        return None


def scan(folder: Path, scope: Scope) -> dict[str, Stamp]:
    """The files of ``folder`` that are meant; those that go meanwhile are left out."""
    found: dict[str, Stamp] = {}
    for path in folder.rglob("*") if not scope.is_flat else folder.glob("*"):
        name = path.relative_to(folder).as_posix()
        if not scope.holds(name) or path.is_symlink() or not path.is_file():
            continue
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        found[name] = (state.st_size, state.st_mtime_ns, state.st_ino)
    return found


@contextmanager
def process_lock(folder: Path) -> Iterator[None]:
    """Keep the other processes of this machine from fetching into ``folder`` at the same time.

    Raises:
        StorageError: the cache cannot be written.
    """
    lock = cache_folder() / "locks" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as problem:
        raise StorageError(
            f"{lock}: cannot be written ({problem.strerror}); set TEMPER_CACHE to another folder for copies"
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
