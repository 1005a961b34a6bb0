"""The Parquet files of new shards, in the layout that the Hugging Face hub uses for images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from temper.data.encode import Encoded
from temper.data.fingerprint import fingerprint_of
from temper.data.folders import ImageFile
from temper.data.groups import GROUP, joined, numbers_of, straddling
from temper.data.manifest import BadImage, Manifest, ShardFile, Split
from temper.data.near_duplicates import near_duplicates
from temper.data.splits import copies_among, draw_splits
from temper.errors import DataError
from temper.records import sha256_of

ROW_GROUP_SIZE = 256


@dataclass
class Writer:
    """Collects rows, writes a Parquet file whenever one is full."""

    folder: Path
    classes: list[str]
    attributes: tuple[str, ...]
    images_per_shard: int
    near_are_grouped: bool = False
    labels: list[int] = field(default_factory=list)
    stored: list[Split] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    """Of each row a number that rows with the same pixels share."""
    groups: list[str | None] = field(default_factory=list)
    """Of each row what the attribute ``group`` says."""
    paths: list[str] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    """Of each picture."""
    has_colour: bool = False
    shards: list[ShardFile] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)
    _pending: list[tuple[bytes, ImageFile]] = field(default_factory=list)
    _parts: list[tuple[Path, int]] = field(default_factory=list)

    def add(self, file: ImageFile, image: Encoded) -> None:
        self._pending.append((image.content, file))
        self.labels.append(file.label)
        self.stored.append(file.split)
        self.digests.append(image.sha256)
        self.pictures.append(self._known.setdefault(image.pixels, len(self._known)))
        if len(self._known) > len(self.thumbnails):
            self.thumbnails.append(image.thumbnail)
        known = dict(zip(self.attributes, file.values, strict=True))
        self.groups.append(known.get(GROUP))
        self.paths.append(file.relative)
        self.sides.append(image.long_side)
        self.has_colour |= not image.is_grey
        if len(self._pending) == self.images_per_shard:
            self._flush()

    def end_split(self, split: Split) -> None:
        """Name the files of a split once it is known how many there are."""
        self._flush()
        for index, (part, num_rows) in enumerate(self._parts):
            path = self.folder / f"{split}-{index:05d}-of-{len(self._parts):05d}.parquet"
            part.rename(path)
            self.shards.append(
                ShardFile(
                    file=path.name, num_rows=num_rows, bytes=path.stat().st_size, sha256=sha256_of(path)
                )
            )
        self._parts = []

    def _flush(self) -> None:
        if self._pending:
            path = self.folder / f"part-{len(self._parts):05d}"
            table = _table(self._pending, self.classes, self.attributes)
            pq.write_table(table, path, row_group_size=ROW_GROUP_SIZE)
            self._parts.append((path, len(self._pending)))
            self._pending = []

    def manifest(
        self, name: str, seed: int, val_frac: float, test_frac: float, bad: list[BadImage]
    ) -> Manifest:
        if not self.labels:
            raise DataError("no readable image at all")
        labels, pictures = np.array(self.labels), np.array(self.pictures)
        near = near_duplicates(self.thumbnails)[pictures]
        groups = joined(pictures, numbers_of(self.groups), *([near] if self.near_are_grouped else []))
        splits = draw_splits(
            labels, self.stored, self.classes, groups, val_frac=val_frac, test_frac=test_frac, seed=seed
        )
        return Manifest(
            name=name,
            fingerprint=fingerprint_of(self.classes, self.digests, self.labels, splits),
            classes=self.classes,
            counts={split: _counts(labels[rows], self.classes) for split, rows in splits.items()},
            channels=3 if self.has_colour else 1,
            long_side=(min(self.sides), max(self.sides)),
            bytes=sum(shard.bytes for shard in self.shards),
            seed=seed,
            shards=self.shards,
            splits=splits,
            skipped=bad,
            copies=copies_among(pictures, self.paths, self.labels, self.classes),
            near_duplicates=copies_among(near, self.paths, self.labels, self.classes),
            near_are_grouped=self.near_are_grouped,
            attributes=list(self.attributes),
            straddling=straddling(self.groups, splits),
        )


def _counts(labels: np.ndarray, classes: list[str]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def _table(
    rows: Sequence[tuple[bytes, ImageFile]], classes: list[str], attributes: Sequence[str]
) -> pa.Table:
    contents, files = zip(*rows, strict=True)
    paths = [file.relative for file in files]
    image = pa.StructArray.from_arrays(
        [pa.array(contents, pa.binary()), pa.array(paths, pa.string())], names=["bytes", "path"]
    )
    columns = {"image": image, "label": pa.array([file.label for file in files], pa.int64())}
    features: dict[str, object] = {
        "image": {"_type": "Image"},
        "label": {"names": classes, "_type": "ClassLabel"},
    }
    for index, name in enumerate(attributes):
        columns[name] = pa.array([file.values[index] for file in files], pa.string())
        features[name] = {"dtype": "string", "_type": "Value"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(metadata)
