"""``manifest.json``: what a folder of shards holds."""

from typing import Literal

from temper.spec import Spec

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ShardFile(Spec):
    """One Parquet file."""

    file: str
    num_rows: int
    bytes: int
    sha256: str


class BadImage(Spec):
    """A file that was left out."""

    path: str
    """Relative to the source folder."""
    reason: str


class Manifest(Spec):
    """Classes, splits and integrity of a set of images.

    ``splits`` lists row numbers, counted over the shards in their order; images are never copied.
    ``fingerprint`` covers the classes, every image's bytes and label, and the splits, so that the same
    images and settings have the same fingerprint on any machine.
    """

    schema_version: Literal[1] = 1
    name: str
    fingerprint: str
    classes: list[str]
    counts: dict[Split, dict[str, int]]
    channels: Literal[1, 3]
    """1 where every image is greyscale."""
    long_side: tuple[int, int]
    """The smallest and the largest long side, in pixels."""
    bytes: int
    seed: int
    shards: list[ShardFile]
    splits: dict[Split, list[int]]
    skipped: list[BadImage]
