"""From encoded bytes to square uint8 images."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from temper.data.jpeg import decode_jpeg
from temper.data.manifest import Split
from temper.data.opening import FORMATS
from temper.data.shard_set import RowGroup, ShardSet
from temper.errors import ShardError
from temper.storage import named

Fit = Literal["pad", "stretch", "crop"]


@dataclass(frozen=True)
class Images:
    """A decoded split: ``images`` uint8 (N,3,S,S), ``labels`` int64 (N,), ``rows`` int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


def decode(content: bytes, image_size: int, fit: Fit, long_side: tuple[int, int] | None = None) -> np.ndarray:
    """An encoded image as uint8 (3,S,S); grey is repeated in all three channels.

    ``pad`` keeps the whole image between black bars, ``stretch`` ignores its aspect ratio, ``crop``
    takes its middle. ``long_side``: the smallest and the largest that it may have, in pixels; it is known
    before anything is decoded.

    Raises:
        ValueError: another size, or more pixels than Pillow's limit. Pillow raises many other kinds.
    """

    def check_size(width: int, height: int) -> None:
        _check_size(width, height, long_side)

    decoded = decode_jpeg(content, check_size)
    if decoded is None:
        # Only formats that shards may hold: Pillow starts a program to read some others.
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            check_size(opened.width, opened.height)
            decoded = np.asarray(_square(opened, image_size, fit))
    elif decoded.shape[:2] != (image_size, image_size):
        decoded = np.asarray(_square(Image.fromarray(decoded), image_size, fit))
    if decoded.ndim == 2:
        return np.broadcast_to(decoded, (3, *decoded.shape))
    return decoded.transpose(2, 0, 1)


def _square(opened: Image.Image, image_size: int, fit: Fit) -> Image.Image:
    """Grey or RGB, of the wanted size; the image itself where it is that already."""
    image = opened if opened.mode in ("L", "RGB") else opened.convert("RGB")
    square = (image_size, image_size)
    if image.size == square:
        return image
    match fit:
        case "pad":
            return ImageOps.pad(image, square, Image.Resampling.BILINEAR)
        case "crop":
            return ImageOps.fit(image, square, Image.Resampling.BILINEAR)
        case "stretch":
            return image.resize(square, Image.Resampling.BILINEAR)


def _check_size(width: int, height: int, long_side: tuple[int, int] | None) -> None:
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS}")
    if long_side is not None and not long_side[0] <= max(width, height) <= long_side[1]:
        raise ValueError(
            f"{width} x {height} pixels, the manifest says a long side of {long_side[0]}..{long_side[1]}"
        )


def decode_rows(
    shards: ShardSet,
    group: RowGroup,
    rows: Sequence[int] | np.ndarray,
    image_size: int,
    fit: Fit,
    *,
    into: np.ndarray | None = None,
    places: Sequence[int] | np.ndarray | None = None,
) -> Images:
    """Decode the given rows (row numbers within ``group``), in their order.

    ``into``, uint8 (M,3,S,S), receives the images where it is given: at the N ``places``, or one after the
    other.

    Raises:
        ShardError: naming the shard and the row that cannot be decoded.
    """
    table = shards.read(group)
    contents = table["image"].combine_chunks().field("bytes")
    labels = table["label"].to_numpy()
    images = np.empty((len(rows), 3, image_size, image_size), np.uint8) if into is None else into
    for place, row in zip(range(len(rows)) if places is None else places, rows, strict=True):
        try:
            content = contents[int(row) - group.start].as_py() or b""
            images[place] = decode(content, image_size, fit, shards.manifest.long_side)
        except Exception as problem:  # Pillow raises many kinds for a damaged image
            reason = str(problem) or type(problem).__name__
            raise ShardError(
                f"{named(shards.path / group.file)}: row {row} cannot be decoded ({reason})"
            ) from None
    chosen = np.asarray(rows, np.int64)
    return Images(images, labels[chosen - group.start].astype(np.int64), chosen)


def load_images(shards: ShardSet, split: Split, image_size: int, fit: Fit) -> Images:
    """Decode a whole split into memory, in the order of its rows.

    Raises:
        ShardError: a row that cannot be read or decoded.
    """
    rows = shards.rows(split)
    images = np.empty((len(rows), 3, image_size, image_size), np.uint8)

    def decode_group(group: RowGroup) -> np.ndarray:
        chosen = rows_within(rows, group)
        start = int(np.searchsorted(rows, group.start))
        part = images[start : start + len(chosen)]
        return decode_rows(shards, group, chosen, image_size, fit, into=part).labels

    groups = [group for group in shards.row_groups if len(rows_within(rows, group))]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        labels = np.concatenate(list(pool.map(decode_group, groups)))
    return Images(images, labels, rows)


def rows_within(rows: np.ndarray, group: RowGroup) -> np.ndarray:
    """Those of the ascending ``rows`` that lie in ``group``."""
    low, high = np.searchsorted(rows, [group.start, group.start + group.num_rows])
    return rows[low:high]


def join(parts: Sequence[Images]) -> Images:
    """Several decoded parts as one, in their order."""
    return Images(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.rows for part in parts]),
    )


def decoded_bytes(shards: ShardSet, image_size: int) -> int:
    """Memory that the training split takes once decoded."""
    return len(shards.rows("train")) * 3 * image_size**2


def paths_of(shards: ShardSet, rows: np.ndarray) -> list[str] | None:
    """The files of ``rows`` (N,) in the source folder, ``""`` where not told; ``None``: of none of them."""
    found: dict[int, str] = {}
    for group in shards.row_groups:
        mine = rows[(rows >= group.start) & (rows < group.start + group.num_rows)]
        if not len(mine):
            continue
        image = shards.read(group, ["image.path"])
        if "image" not in image.column_names:
            return None
        names = image["image"].combine_chunks().field("path").to_pylist()
        found |= {row: names[row - group.start] or "" for row in mine.tolist()}
    return [found[row] for row in rows.tolist()] if any(found.values()) else None
