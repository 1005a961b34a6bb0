"""One process at a time in a local folder. Remote addresses are locked by their mirror."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

from temper.errors import CheckpointError, StorageError
from temper.records import RunFolder
from temper.storage import is_remote

POLL_S = 0.2
BUSY = "training or evaluating this run"
PATIENCE_S = 20.0
"""For a process that was told to end, or whose end has not been noticed everywhere."""

logger = logging.getLogger(__name__)


def hold_run(path: Path) -> AbstractContextManager[None]:
    """Keep others from training or evaluating into the run folder ``path`` meanwhile.

    Raises:
        CheckpointError, StorageError: as ``hold``.
    """
    return nullcontext() if is_remote(path) else hold(RunFolder(path).lock, BUSY, patience_s=PATIENCE_S)


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
        place = lock if os.path.lexists(lock) else lock.parent
        raise StorageError(f"{place}: cannot be written ({problem.strerror})") from None
    with file:
        try:
            yield
        finally:
            with suppress(OSError):  # a disk that has turned read-only, a folder that is not empty
                lock.unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        logger.warning(
            "%s: this disk does not support locks; no other process may write there meanwhile", folder
        )


def _take(lock: Path) -> IO[str] | None:
    """The locked file; ``None`` if another process holds it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(lock, flags, 0o666), "w")  # through no link, and waiting for no pipe
    with suppress(BlockingIOError, FileNotFoundError):
        _lock(file, lock.parent)
        # A former owner may have removed the file between the two.
        if os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            return file
    file.close()
    return None
