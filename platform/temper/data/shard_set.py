"""Reading shards: opening them, checking them, and finding rows."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from temper.data.manifest import Manifest, Split
from temper.errors import ShardError
from temper.records import sha256_of


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the manifest and see that every shard is there.

        Raises:
            ShardError: no shards here, a manifest of another version, or a file missing or of another size.
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
                raise ShardError(f"{found}: the manifest names this shard, but it is missing")
            if found.stat().st_size != shard.bytes:
                raise ShardError(f"{found}: {found.stat().st_size} bytes, the manifest says {shard.bytes}")
        return cls(path, manifest)

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers (N,) of a split, ascending."""
        return np.array(self.manifest.splits[split], dtype=np.int64)

    def class_counts(self, split: Split) -> list[int]:
        """Images of each class, in the order of ``classes``."""
        return [self.manifest.counts[split][name] for name in self.classes]

    @cached_property
    def row_groups(self) -> list["RowGroup"]:
        """Every row group of every shard, in the order of the rows."""
        groups = []
        start = 0
        for shard in self.manifest.shards:
            metadata = pq.read_metadata(self.path / shard.file)
            for index in range(metadata.num_row_groups):
                groups.append(RowGroup(shard.file, index, start, metadata.row_group(index).num_rows))
                start += metadata.row_group(index).num_rows
        return groups

    def read(self, group: "RowGroup") -> pa.Table:
        """The rows of one group: ``image`` (bytes and path) and ``label``.

        Raises:
            ShardError: the file is damaged.
        """
        path = self.path / group.file
        try:
            return pq.ParquetFile(path).read_row_group(group.index)
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
