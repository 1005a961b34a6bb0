"""Reading shards: opening them, checking them, and finding rows."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from temper.data.fingerprint import fingerprint_of
from temper.data.groups import GROUP, joined, numbers_among, numbers_of
from temper.data.integrity import (
    AGAIN,
    check_columns,
    check_content,
    check_files,
    check_splits,
    check_unchanged,
    is_small,
)
from temper.data.manifest import Manifest, ShardFile, Split
from temper.data.remote_shards import copy_of, read_in_place, read_manifest, sizes_of
from temper.data.splits import stratified_subset
from temper.errors import RecipeError, ShardError
from temper.storage import named


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards and its manifest."""

    path: Path
    """May be in S3; ``named`` tells how it is written."""
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the manifest and see that it tells the truth about the shards.

        The images of a set beyond ``integrity.WHOLE_BYTES`` are looked at only when they are read.

        Raises:
            ShardError: no shards here, a manifest of another version, whose splits overlap, or that claims
                other labels or images than the shards hold, or a file missing, cut short or changed.
        """
        file = named(path / "manifest.json")
        try:
            manifest = Manifest.model_validate_json(read_manifest(path))
        except FileNotFoundError:
            where = named(path)
            raise ShardError(
                f"{where}: no shards here; create them with `temper shards SRC {where}`"
            ) from None
        except OSError as problem:
            raise ShardError(f"{file}: cannot be read ({problem})") from None
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise ShardError(f"{file}: not a manifest ('{place}': {message}){AGAIN}") from None
        check_files(path, manifest, sizes_of(path, manifest))
        check_splits(file, manifest)
        shards = cls(path, manifest)
        if is_small(manifest):
            shards.verify()
        check_content(file, manifest, lambda: shards.labels, shards.read_fingerprint)
        return shards

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers (N,) of a split, ascending."""
        return np.sort(np.array(self.manifest.splits[split], dtype=np.int64))

    def class_counts(self, split: Split) -> list[int]:
        """Images of each class, in the order of ``classes``."""
        return [self.manifest.counts[split][name] for name in self.classes]

    def few_shot(self, shots: int, seed: int) -> "ShardSet":
        """The same shards with ``shots`` training images of each class, drawn by ``seed``; all else stays.

        Raises:
            RecipeError: a class has fewer training images.
        """
        counts = self.manifest.counts["train"]
        name, smallest = min(counts.items(), key=lambda item: item[1])
        if shots > smallest:
            raise RecipeError(
                f"data.shots_per_class: got {shots}, but class '{name}' of {named(self.path)} has "
                f"{smallest} training images; allowed: 1..{smallest}"
            )
        rows = self.rows("train")
        labels = self.labels[rows]
        shuffled = np.random.default_rng(seed).permutation(len(rows))
        chosen = [shuffled[labels[shuffled] == label][:shots] for label in range(len(self.classes))]
        return self._trained_on(rows[np.concatenate(chosen)])

    def training_subset(self, limit: int, seed: int) -> "ShardSet":
        """The same shards with at most ``limit`` training images, drawn by ``seed``; classes keep shares."""
        rows = self.rows("train")
        if len(rows) <= limit:
            return self
        return self._trained_on(rows[stratified_subset(self.labels[rows], limit, seed)])

    def _trained_on(self, rows: np.ndarray) -> "ShardSet":
        """The same shards with ``rows`` as their training split."""
        counts = np.bincount(self.labels[rows], minlength=len(self.classes)).tolist()
        update = {
            "splits": {**self.manifest.splits, "train": np.sort(rows).tolist()},
            "counts": {**self.manifest.counts, "train": dict(zip(self.classes, counts, strict=True))},
        }
        return ShardSet(self.path, self.manifest.model_copy(update=update))

    @cached_property
    def labels(self) -> np.ndarray:
        """The class (N,) of every row, whatever its split."""
        parts = [self._labels_of(group) for group in self.row_groups]
        return np.concatenate([*parts, np.empty(0, np.int64)])

    def _labels_of(self, group: "RowGroup") -> np.ndarray:
        column = self.read(group, ["label"])["label"]
        if column.null_count:
            raise ShardError(
                f"{named(self.path / group.file)}: {column.null_count} rows have no label{AGAIN}"
            )
        return np.asarray(column.to_numpy(), np.int64)

    @cached_property
    def digests(self) -> list[bytes]:
        """SHA-256 of every row's encoded image."""
        found: list[bytes] = []
        for group in self.row_groups:
            contents = self.read(group, ["image.bytes"])["image"].combine_chunks().field("bytes")
            found += [hashlib.sha256(content.as_buffer()).digest() for content in contents]
        return found

    def read_fingerprint(self) -> str:
        """The fingerprint of what is in the shards, whatever their manifest says it is."""
        digests = [digest.hex() for digest in self.digests]
        return fingerprint_of(self.classes, digests, self.labels.tolist(), self.manifest.splits)

    @cached_property
    def copies(self) -> np.ndarray:
        """For every row (N,) a number that rows with the same bytes or, by the manifest, pixels share."""
        known: dict[bytes, int] = {}
        digests = list(self.digests)
        first = {digests[row]: digests[one.rows[0]] for one in self.manifest.copies or () for row in one.rows}
        same = [first.get(digest, digest) for digest in digests]
        return np.array([known.setdefault(digest, len(known)) for digest in same], np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """For every row (N,) a number that rows share which belong in one split."""
        near = numbers_among(self.manifest.alike or (), len(self.copies))
        return joined(self.copies, numbers_of(self.column(GROUP)), near)

    def column(self, name: str) -> list[str | None]:
        """What the shards say of every row; ``None`` where nothing is known."""
        if name not in self.manifest.attributes:
            return [None] * len(self.labels)
        return [value for group in self.row_groups for value in self.read(group, [name])[name].to_pylist()]

    @cached_property
    def row_groups(self) -> list["RowGroup"]:
        """Every row group of every shard, in the order of the rows.

        Raises:
            ShardError: a file that is no shard, or does not hold the rows that the manifest says.
        """
        groups = []
        start = 0
        for shard in self.manifest.shards:
            metadata = self._metadata(shard)
            for index in range(metadata.num_row_groups):
                groups.append(RowGroup(shard.file, index, start, metadata.row_group(index).num_rows))
                start += metadata.row_group(index).num_rows
        return groups

    def _metadata(self, shard: ShardFile) -> pq.FileMetaData:
        path = named(self.path / shard.file)
        try:
            metadata = read_in_place(self.path, shard, pq.read_metadata)
        except (OSError, pa.ArrowException) as problem:
            raise ShardError(f"{path}: not a Parquet file ({problem})") from None
        columns = {
            name.path: name.physical_type for name in map(metadata.schema.column, range(metadata.num_columns))
        }
        check_columns(path, columns, self.manifest.attributes)
        if metadata.num_rows != shard.num_rows:
            raise ShardError(f"{path}: {metadata.num_rows} rows, the manifest says {shard.num_rows}")
        return metadata

    def read(self, group: "RowGroup", columns: list[str] | None = None) -> pa.Table:
        """The rows of one group: ``image`` (bytes and path) and ``label``, or only some ``columns``.

        Raises:
            ShardError: the file is damaged, or has changed since it was written.
        """
        path, shard = named(self.path / group.file), self._files[group.file]
        try:
            if columns is None or "image.bytes" in columns:
                return pq.ParquetFile(self._unchanged(shard)).read_row_group(group.index, columns)
            return read_in_place(
                self.path, shard, lambda file: pq.ParquetFile(file).read_row_group(group.index, columns)
            )
        except (OSError, pa.ArrowException) as problem:
            raise ShardError(f"{path}: row group {group.index} cannot be read ({problem})") from None

    def verify(self) -> None:
        """Compare every shard's SHA-256 with the manifest.

        Raises:
            ShardError: a shard has changed since it was written.
        """
        for shard in self.manifest.shards:
            self._unchanged(shard)

    def _unchanged(self, shard: ShardFile) -> Path:
        """The local file of a shard, whose SHA-256 is that of the manifest."""
        path = copy_of(self.path, shard)
        check_unchanged(path, shard)
        return path

    @cached_property
    def _files(self) -> dict[str, ShardFile]:
        return {shard.file: shard for shard in self.manifest.shards}


@dataclass(frozen=True)
class RowGroup:
    """Consecutive rows that are read together."""

    file: str
    index: int
    start: int
    """The row number of the first of them."""
    num_rows: int
