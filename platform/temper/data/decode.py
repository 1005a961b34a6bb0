"""The images of a split, decoded."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from temper.data.image_view import ImageView
from temper.data.manifest import Split
from temper.data.shard_set import RowGroup, ShardSet
from temper.errors import ShardError
from temper.storage import named


@dataclass(frozen=True)
class Images:
    """A decoded split: ``images`` uint8 (N,3,S,S), ``labels`` int64 (N,), ``rows`` int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


def decode_rows(
    shards: ShardSet,
    group: RowGroup,
    rows: Sequence[int] | np.ndarray,
    view: ImageView,
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
    images = view.empty(len(rows)) if into is None else into
    for place, row in zip(range(len(rows)) if places is None else places, rows, strict=True):
        try:
            content = contents[int(row) - group.start].as_py() or b""
            images[place] = view.decode(content, shards.manifest.long_side)
        except Exception as problem:  # Pillow raises many kinds for a damaged image
            reason = str(problem) or type(problem).__name__
            raise ShardError(
                f"{named(shards.path / group.file)}: row {row} cannot be decoded ({reason})"
            ) from None
    chosen = np.asarray(rows, np.int64)
    return Images(images, labels[chosen - group.start].astype(np.int64), chosen)


def load_images(shards: ShardSet, split: Split, view: ImageView) -> Images:
    """Decode a whole split into memory, in the order of its rows.

    Raises:
        ShardError: a row that cannot be read or decoded.
    """
    rows = shards.rows(split)
    images = view.empty(len(rows))

    def decode_group(group: RowGroup) -> np.ndarray:
        chosen = rows_within(rows, group)
        start = int(np.searchsorted(rows, group.start))
        part = images[start : start + len(chosen)]
        return decode_rows(shards, group, chosen, view, into=part).labels

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


def decoded_bytes(shards: ShardSet, view: ImageView) -> int:
    """Memory that the training split takes once decoded."""
    return len(shards.rows("train")) * view.num_bytes


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
