"""Zip and tar archives: unpacked beside the shards, and removed afterwards."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from temper.data.manifest import BadImage
from temper.errors import DataError

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SUFFIXES = (".zip", *TARS)
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    LZMAError,
    RuntimeError,
)
"""What zipfile and tarfile raise; a zip with a password is a RuntimeError."""


class Entry(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    opened: IO[bytes] | None
    """To be read before the next entry; ``None``: a link or a device."""


@dataclass
class Unpacking:
    """What is written of an archive into a folder, and what is not."""

    archive: Path
    folder: Path
    refused: list[BadImage] = field(default_factory=list)
    _left: int = -1

    def __post_init__(self) -> None:
        # The shards need room too; and an archive of a few megabytes may unpack to any size.
        self._left = shutil.disk_usage(self.folder).free // 2

    def write(self, entry: Entry, name: str) -> bool:
        """Write an entry as ``name`` below the folder, or note why not; returns whether it was written.

        Raises:
            DataError: a name that leads elsewhere, or too many bytes for the disk.
        """
        target = self.folder / self.inside(name)
        if entry.opened is None:
            return self._refuse(entry, "a link or a device in an archive")
        self._left -= entry.size
        if self._left < 0:
            raise DataError(
                f"{self.archive}: unpacked, it needs more than half of what is free on this disk; make room, "
                "or unpack it elsewhere and give the folder"
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                shutil.copyfileobj(entry.opened, file)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            return self._refuse(entry, "the archive already has this name")
        return True

    def inside(self, name: str) -> PurePosixPath:
        """``name`` as a path below the folder.

        Raises:
            DataError: it leads elsewhere.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise DataError(
                f"{self.archive}: the entry {name!a} points outside the archive; nothing was read"
            )
        return path

    def _refuse(self, entry: Entry, reason: str) -> bool:
        self.refused.append(BadImage(path=ascii(entry.name)[1:-1], reason=reason))
        return False


def is_archive(path: Path) -> bool:
    """Whether its name is that of an archive that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith(TARS)


def stem_of(path: Path) -> str:
    """The name of an archive without its suffix."""
    suffix = max((one for one in SUFFIXES if path.name.lower().endswith(one)), key=len, default="")
    return path.name[: len(path.name) - len(suffix)]


@contextmanager
def entries_of(archive: Path) -> Iterator[Iterator[Entry]]:
    """The files of an archive, in their order.

    Raises:
        DataError: it cannot be read, needs a password, or is damaged.
    """
    with ExitStack() as stack:
        try:
            if is_tar(archive):
                entries = _of_tar(stack.enter_context(tarfile.open(archive)))
            else:
                entries = _of_zip(stack.enter_context(zipfile.ZipFile(archive)))
        except (OSError, *DAMAGED) as problem:
            raise _damaged(archive, problem) from None
        try:
            yield entries
        except DAMAGED as problem:
            raise _damaged(archive, problem) from None
        except OSError as problem:
            if problem.errno is not None:  # of the disk; gzip and bz2 have none
                raise
            raise _damaged(archive, problem) from None


def _damaged(archive: Path, problem: BaseException) -> DataError:
    kind = "tar" if is_tar(archive) else "zip"
    reason = (str(problem) or type(problem).__name__).splitlines()[0]
    return DataError(f"{archive}: not a readable {kind} archive ({reason})")


def _of_tar(tar: tarfile.TarFile) -> Iterator[Entry]:
    for member in tar:
        if not member.isdir():
            yield Entry(member.name, member.size, tar.extractfile(member) if member.isreg() else None)


def _of_zip(zipped: zipfile.ZipFile) -> Iterator[Entry]:
    for info in zipped.infolist():
        if info.is_dir():
            continue
        name = info.filename.replace("\\", "/")  # as some programs for Windows write it
        if stat.S_ISLNK(info.external_attr >> 16):
            yield Entry(name, 0, None)
            continue
        with zipped.open(info) as opened:
            yield Entry(name, info.file_size, opened)
