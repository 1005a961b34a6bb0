"""What the images are like: how many, how large, how even their classes."""

import io
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from temper.data import ShardSet, write_shards
from temper.data.hub_parquet import hub_files
from temper.data.layout import scan_source
from temper.data.opening import FORMATS
from temper.data.shards import Progress
from temper.data.sources import webdataset_tars
from temper.errors import DataError, UsageError
from temper.fitting.request import AS_THEY_ARE, Reading
from temper.fitting.sizes import LARGEST
from temper.spec import Channels, Spec

IMBALANCED = 1.5
"""The largest class, as a multiple of the smallest, from which every class is to count the same."""
SQUARE = 1.1
"""The aspect up to which images count as square."""
NUM_SIZED = 200
"""Images whose size is looked at."""
FEWEST = 3
"""Splits, in each of which every class has an image."""


class Look(Spec):
    """What a set of images is like."""

    name: str
    num_train: int
    num_val: int
    num_test: int
    classes: dict[str, int]
    """Class -> training images."""
    long_side: int
    """The median, in pixels."""
    aspect: float = 1.0
    """Long side over short side, the median."""
    channels: Channels = "colour"
    """``grey`` where every image is, so that attacks change all channels alike."""

    @property
    def is_square(self) -> bool:
        """Whether hardly anything would be padded."""
        return self.aspect <= SQUARE

    @property
    def is_imbalanced(self) -> bool:
        """Whether some classes have so many more images that accuracy would be theirs alone."""
        counts = self.classes.values()
        return max(counts) > IMBALANCED * min(counts)


def make_shards(
    images: Path,
    destination: Path,
    *,
    size: int | None,
    seed: int,
    reading: Reading = AS_THEY_ARE,
    on_progress: Progress | None = None,
) -> Path:
    """The folder of shards to use: ``images`` itself where it is one, else ``destination``, made of them.

    Raises:
        DataError: no such folder, no classes, or a class with too few images.
        ShardError: too many images that cannot be read.
    """
    if (images / "manifest.json").exists():
        return images
    if not (destination / "manifest.json").exists():
        check_classes(images, reading)
        write_shards(
            images,
            destination,
            size=max(LARGEST, size or 0),
            depth=reading.depth,
            max_pixels=reading.max_pixels,
            max_bad_frac=reading.max_bad,
            follow_links=reading.follow_links,
            seed=seed,
            labels=reading.table,
            group=reading.group,
            group_near_duplicates=reading.group_near_duplicates,
            on_progress=on_progress,
        )
    return destination


def check_reading(images: Path, reading: Reading) -> None:
    """Refuse words about reading files of images that are shards already.

    Raises:
        UsageError: there are some.
    """
    if reading.options and (images / "manifest.json").exists():
        raise UsageError(
            f"{', '.join(reading.options)}: {images} holds shards, whose images are read and labelled; "
            "leave it out, or give the folder of images"
        )


def check_classes(images: Path, reading: Reading = AS_THEY_ARE) -> None:
    """Refuse classes that cannot be shared out, before any image is read.

    Raises:
        DataError: no classes, or a class with too few images.
    """
    if webdataset_tars(images) or hub_files(images):  # unpacked as they are written into shards
        return
    scan = scan_source(images, reading.table, reading.group, follow_links=reading.follow_links)
    classes, files = scan.classes, scan.files
    splits = {file.split for file in files}
    counts = Counter(file.label for file in files if file.split == "train")
    needed = 1 + FEWEST - len(splits)
    few = {classes[label]: count for label, count in counts.items() if count < needed}
    if few:
        name, count = min(few.items(), key=lambda item: item[1])
        others = f" (and {len(few) - 1} more such classes)" if len(few) > 1 else ""
        raise DataError(
            f"{images}: the class '{name}' has {count} training image{'s' if count > 1 else ''}{others}; "
            f"each needs {needed} or more, for training, validation and test: add images, or remove the class"
        )


def look_at(shards: ShardSet) -> Look:
    """Count and size the images of ``shards``.

    Raises:
        ShardError: images that cannot be read.
    """
    counts = {split: sum(shards.class_counts(split)) for split in shards.manifest.splits}
    sides = list(_sides(shards))
    return Look(
        name=shards.manifest.name,
        num_train=counts["train"],
        num_val=counts["val"],
        num_test=counts["test"],
        classes=dict(shards.manifest.counts["train"]),
        long_side=int(statistics.median(max(pair) for pair in sides)),
        aspect=round(statistics.median(max(pair) / min(pair) for pair in sides), 3),
        channels="grey" if shards.manifest.channels == 1 else "colour",
    )


def _sides(shards: ShardSet) -> Iterator[tuple[int, int]]:
    """Width and height of the first images."""
    left = NUM_SIZED
    for group in shards.row_groups:
        contents = shards.read(group, ["image.bytes"])["image"].combine_chunks().field("bytes")
        some = np.linspace(0, len(contents) - 1, min(len(contents), left)).astype(int)
        for index in some:
            with Image.open(io.BytesIO(contents[int(index)].as_py()), formats=FORMATS) as opened:
                yield opened.size
        left -= len(some)
        if left <= 0:
            break
