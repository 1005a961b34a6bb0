"""One process at a time in a local folder. Remote addresses are locked by their mirror."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from temper.errors import CheckpointError, StorageError

POLL_S = 0.2


@contextmanager
def hold(lock: Path, what: str, *, patience_s: float = 0.0) -> Iterator[None]:
    """Keep other processes out while the file ``lock`` is held; it is released when its owner ends.

    The error says ``what`` the other process does, after ``patience_s`` for owners that are about to end.
    Folders that were made for the lock are removed if nothing else was written there.

    Raises:
        CheckpointError: another process holds it.
        StorageError: the folder cannot be made, or written to.
    """
    made = [folder for folder in lock.parents if not folder.exists()]
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience_s
        while (file := _take(lock)) is None:
            if time.monotonic() >= deadline:
                raise CheckpointError(f"{lock.parent}: another process is {what}")
            time.sleep(POLL_S)
    except OSError as problem:
        raise StorageError(f"{lock.parent}: cannot be written ({problem.strerror})") from None
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for folder in made:
                    folder.rmdir()


def _take(lock: Path) -> IO[str] | None:
    """The locked file; ``None`` if another process holds it."""
    file = lock.open("w")
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A former owner may have removed the file between the two.
        if os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            return file
    file.close()
    return None
