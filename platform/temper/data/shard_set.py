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

from temper.data.manifest import Manifest, ShardFile, Split
from temper.errors import RecipeError, ShardError
from temper.records import sha256_of

AGAIN = "; copy it again, or make new shards with `temper shards SRC DST`"


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the manifest and see that every shard is there.

        Raises:
            ShardError: no shards here, a manifest of another version or whose splits overlap, or a file
                missing or of another size.
        """
        file = path / "manifest.json"
        try:
            manifest = Manifest.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ShardError(f"{path}: no shards here; `temper shards SRC {path}` makes them") from None
        except (OSError, UnicodeDecodeError) as problem:
            raise ShardError(f"{file}: cannot be read ({problem})") from None
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ShardError(f"{file}: not a manifest ('{place}': {first['msg']})") from None
        for shard in manifest.shards:
            found = path / shard.file
            if not found.is_file():
                raise ShardError(f"{found}: the manifest names this shard, but it is missing{AGAIN}")
            if found.stat().st_size != shard.bytes:
                size = found.stat().st_size
                raise ShardError(f"{found}: {size} bytes, the manifest says {shard.bytes}{AGAIN}")
        rows = np.array([row for split in manifest.splits.values() for row in split], dtype=np.int64)
        total = sum(shard.num_rows for shard in manifest.shards)
        if len(np.unique(rows)) < len(rows) or not np.all((rows >= 0) & (rows < total)):
            raise ShardError(f"{file}: 'splits' names a row twice, or one outside 0..{total - 1}{AGAIN}")
        return cls(path, manifest)

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
                f"data.shots_per_class: {shots} are wanted, class '{name}' of {self.path} has {smallest} "
                f"training images; allowed: 1..{smallest}"
            )
        rows = self.rows("train")
        labels = self.labels[rows]
        shuffled = np.random.default_rng(seed).permutation(len(rows))
        chosen = [shuffled[labels[shuffled] == label][:shots] for label in range(len(self.classes))]
        kept = np.sort(rows[np.concatenate(chosen)]).tolist()
        update = {
            "splits": {**self.manifest.splits, "train": kept},
            "counts": {**self.manifest.counts, "train": dict.fromkeys(counts, shots)},
        }
        return ShardSet(self.path, self.manifest.model_copy(update=update))

    @cached_property
    def labels(self) -> np.ndarray:
        """The class (N,) of every row, whatever its split."""
        parts = [self.read(group, ["label"])["label"].to_numpy() for group in self.row_groups]
        return np.concatenate(parts).astype(np.int64)

    @cached_property
    def digests(self) -> list[bytes]:
        """SHA-256 of every row's encoded image."""
        found: list[bytes] = []
        for group in self.row_groups:
            contents = self.read(group, ["image.bytes"])["image"].combine_chunks().field("bytes")
            found += [hashlib.sha256(content.as_buffer()).digest() for content in contents]
        return found

    @cached_property
    def copies(self) -> np.ndarray:
        """For every row (N,) a number that rows with the very same encoded image share."""
        known: dict[bytes, int] = {}
        return np.array([known.setdefault(digest, len(known)) for digest in self.digests], np.int64)

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
        path = self.path / shard.file
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as problem:
            raise ShardError(f"{path}: not a Parquet file ({problem})") from None
        columns = {
            name.path: name.physical_type for name in map(metadata.schema.column, range(metadata.num_columns))
        }
        if columns.get("image.bytes") != "BYTE_ARRAY" or columns.get("label") != "INT64":
            raise ShardError(
                f"{path}: expected the columns image {{bytes, path}} and label (int64), found "
                f"{', '.join(columns) or 'none'}; `temper shards SRC DST` makes such shards"
            )
        if metadata.num_rows != shard.num_rows:
            raise ShardError(f"{path}: {metadata.num_rows} rows, the manifest says {shard.num_rows}")
        return metadata

    def read(self, group: "RowGroup", columns: list[str] | None = None) -> pa.Table:
        """The rows of one group: ``image`` (bytes and path) and ``label``, or only some ``columns``.

        Raises:
            ShardError: the file is damaged.
        """
        path = self.path / group.file
        try:
            return pq.ParquetFile(path).read_row_group(group.index, columns)
        except (OSError, pa.ArrowException) as problem:
            raise ShardError(f"{path}: row group {group.index} cannot be read ({problem})") from None

    def verify(self) -> None:
        """Compare every shard's SHA-256 with the manifest.

        Raises:
            ShardError: a shard has changed since it was written.
        """
        for shard in self.manifest.shards:
            if sha256_of(self.path / shard.file) != shard.sha256:
                raise ShardError(f"{self.path / shard.file}: changed since it was written (SHA-256 differs)")


@dataclass(frozen=True)
class RowGroup:
    """Consecutive rows that are read together."""

    file: str
    index: int
    start: int
    """The row number of the first of them."""
    num_rows: int
