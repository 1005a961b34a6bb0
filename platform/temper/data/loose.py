"""Images that are in no shards: files and folders as a user names them."""

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from temper.data.deep import FULL
from temper.data.encode import encode
from temper.data.image_view import ImageView
from temper.data.walk import below, is_note, walk
from temper.records import Depth


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
    if not path.exists() and not path.is_symlink():
        raise ValueError("no such file")
    return view.decode(encode(path, long_side, lambda deep: deep.depth(depth) or FULL).content)
