"""Images that are in no shards: files and folders as a user names them."""

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from temper.data.deep import FULL, Deep
from temper.data.encode import encode
from temper.data.image_view import ImageView
from temper.data.walk import below, is_note, walk
from temper.records import Depth

UNKNOWN = "scaled by all 16 bits, because the training images have no depth to scale them by"
"""What is said of an image of more than 8 bits for a model that was trained on images of 8."""


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and those in folders that are named, in order and each once.

    In folders, at any depth, notes beside images and what operating systems leave behind are passed over. A
    path where nothing is stays: reading it says so.
    """
    return list(dict.fromkeys(file for path in paths for file in _files_of(path)))


def _files_of(path: Path) -> Iterator[Path]:
    path = as_spelled(path)
    if not path.is_dir():
        yield path
        return
    yield from (file for file in sorted(walk(path)) if not is_note(below(file, path)))


def as_spelled(path: Path) -> Path:
    """``path`` as the disk spells it: an accent may be a character of its own there (macOS) or not."""
    if path.exists() or path.is_symlink():
        return path
    spellings = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((one for one in spellings if one.exists()), path)


def read_image(path: Path, view: ImageView, long_side: int | None, depth: Depth | None = None) -> np.ndarray:
    """An image file as a model sees it, uint8 (3,S,S): as it would come out of shards.

    Images with a longer side than ``long_side`` are first reduced to it, as those in the shards were, and
    values of more than 8 bits are scaled by their ``depth``.

    Raises:
        ValueError: no file, no image, or a damaged one.
        OSError: the file cannot be read.
    """
    return read_noted(path, view, long_side, depth)[0]


def read_noted(
    path: Path, view: ImageView, long_side: int | None, depth: Depth | None = None
) -> tuple[np.ndarray, str | None]:
    """The same, and what is to be said of it, such as that the first of several frames was read.

    Raises:
        ValueError: no file, no image, or a damaged one.
        OSError: the file cannot be read.
    """
    if not path.exists() and not path.is_symlink():
        raise ValueError("no such file")
    guessed: list[str] = []

    def depth_of(deep: Deep) -> Depth:
        if (known := deep.depth(depth)) is None:
            guessed.append(f"values up to {deep.values.max()}, {UNKNOWN}")
        return known or FULL

    image = encode(path, long_side, depth_of)
    note = ", ".join([*guessed, *([image.note] if image.note else [])]) or None
    return view.decode(image.content), note
