"""Reading the image files of a set, several at a time."""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from temper.data.deep import Deep
from temper.data.encode import Encoded, encode, largest_value
from temper.data.folders import ImageFile
from temper.errors import DataError
from temper.records import Depth

NUM_THREADS = min(8, os.cpu_count() or 1)
AHEAD = 512
"""Files that are read before what was read of them is asked for."""
BATCH = 16
"""Files that a thread takes at a time: of small images, handing over costs as much as decoding."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners have."""
FAR_BITS = 4
"""By so many fewer bits, an image that is scaled like the brightest one is nearly black."""

logger = logging.getLogger(__name__)


class SetDepth:
    """How images of more than 8 bits are scaled: as given, or by the largest value among all ``files``.

    They are looked at when the first such image asks, so that a set without any is read once. A file that
    says by itself how it is shown is scaled so, unless a window was given.
    """

    def __init__(self, given: Depth | None, files: Sequence[Path]) -> None:
        self._given = given
        self.found: Depth | None = None
        """``None`` until an image is scaled by it."""
        self._files = files
        self._lock = threading.Lock()

    def __call__(self, deep: Deep) -> Depth:
        own = None if deep.own is None else deep.depth(self._given)
        if own is not None and own != self._given:
            return own
        with self._lock:
            if self.found is None:
                self.found = self._given or _depth_of(self._files)
            return self.found

    def check_used(self) -> None:
        """Refuse a setting that changed nothing.

        Raises:
            DataError: a depth was given, and no image was scaled by it.
        """
        if self._given is not None and self.found is None:
            name = "--bit-depth" if self._given.window is None else "--window"
            raise DataError(f"{name}: has no effect: no image of this set has more than 8 bits; omit it")


def _depth_of(files: Sequence[Path]) -> Depth:
    with ThreadPoolExecutor(max_workers=NUM_THREADS) as pool:
        values = list(pool.map(largest_value, files))
    found = {path: value for path, value in zip(files, values, strict=True) if value is not None}
    brightest = max(found, key=found.__getitem__, default=None)
    largest = 0 if brightest is None else found[brightest]
    bits, ordered = _bits(largest), sorted(found.values())
    usual = _bits(ordered[(len(ordered) - 1) // 2]) if ordered else bits
    if bits - usual >= FAR_BITS:
        count, name = sum(value < 2**usual for value in ordered), brightest.name if brightest else ""
        logger.warning(
            "%d of %d images of more than 8 bits stay within %d bits, but %s needs %d; scaled by these, they "
            "are nearly black: see whether the files belong together, or give --bit-depth %d",
            *(count, len(ordered), usual, name, bits, usual),
        )
    return Depth(bits=bits, largest=largest)


def _bits(largest: int) -> int:
    return next(bits for bits in DEPTHS if largest < 2**bits)


@dataclass(frozen=True)
class Reader:
    """Reads image files, several at a time."""

    root: Path | None
    """Resolved; files that lie elsewhere are refused. ``None``: links are followed."""
    size: int | None
    depth: SetDepth
    _leading_out: dict[Path, bool] = field(default_factory=dict)
    """Of folders."""

    def read_all(self, files: Sequence[ImageFile]) -> Iterator[tuple[ImageFile, Encoded | str]]:
        """Each file with its encoded image, or with the reason why there is none, in order."""
        with ThreadPoolExecutor(max_workers=NUM_THREADS) as pool:
            for start in range(0, len(files), AHEAD):
                chunk = files[start : start + AHEAD]
                batches = [chunk[first : first + BATCH] for first in range(0, len(chunk), BATCH)]
                for batch, results in zip(batches, pool.map(self._read_batch, batches), strict=True):
                    yield from zip(batch, results, strict=True)

    def _read_batch(self, files: Sequence[ImageFile]) -> list[Encoded | str]:
        return [self._read(file) for file in files]

    def _read(self, file: ImageFile) -> Encoded | str:
        if printable(file.relative) != file.relative:
            return "its name is not UTF-8"
        try:
            if self._leads_out(file.path):
                return "a link to outside of the source folder (--follow-links reads it)"
            return encode(file.path, self.size, self.depth)
        except OSError as problem:
            return f"cannot be read ({problem.strerror})"
        except ValueError as problem:
            return self._folder(file.path) if file.path.is_dir() else str(problem)

    def _folder(self, path: Path) -> str:
        """Why a folder stands among the files."""
        if not path.is_symlink():
            return "a folder that cannot be read"
        return (
            "a link to a folder around it"
            if self.root is None
            else "a link to a folder (--follow-links reads it)"
        )

    def _leads_out(self, path: Path) -> bool:
        if self.root is None:
            return False
        if path.is_symlink():
            return path.exists() and not path.resolve().is_relative_to(self.root)
        folder = path.parent  # resolved once for all of its files
        if folder not in self._leading_out:
            self._leading_out[folder] = not folder.resolve().is_relative_to(self.root)
        return self._leading_out[folder]


def printable(path: str) -> str:
    """``path`` with the bytes that are not UTF-8 written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
