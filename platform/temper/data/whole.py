"""Folders that appear whole or not at all."""

import glob
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from temper.errors import ShardError
from temper.leftovers import held_folder, remove_leftovers


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder under another name, which becomes ``folder`` once it is whole."""
    with scratch_folder(folder) as writing:
        yield writing
        writing.rename(folder)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder``, which is removed at the end.

    What a killed process left of the same is removed first.
    """
    writing = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        remove_leftovers(folder.parent, f".{glob.escape(folder.name)}.*.tmp")
        writing.mkdir(parents=True)
        with held_folder(writing):
            yield writing
    except OSError as problem:
        raise ShardError(f"{folder}: cannot be written ({problem.strerror})") from None
    finally:
        shutil.rmtree(writing, ignore_errors=True)
