"""Working folders: what a killed process left of its own is removed by the next one."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

YOUNG_S = 60.0
"""A folder may be made, and not yet held."""


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold an existing ``folder``: as long as this process lives, ``remove_leftovers`` keeps away from it."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a disk that knows no locks
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)


def remove_leftovers(parent: Path, pattern: str) -> list[Path]:
    """Remove the folders of ``parent`` that match ``pattern``, are older than a minute, and nobody holds.

    Returns them. Whatever cannot be looked at or removed stays.
    """
    removed = []
    for folder in sorted(parent.glob(pattern)):
        with suppress(OSError):
            if folder.is_symlink() or time.time() - folder.stat().st_mtime < YOUNG_S:
                continue
            number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                removed.append(folder)
            finally:
                os.close(number)
    return removed
