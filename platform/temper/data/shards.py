"""Writing shards: from a folder of images to Parquet files and a manifest."""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from temper.data.encode import Encoded, encode
from temper.data.folders import ImageFile
from temper.data.layout import scan_source
from temper.data.manifest import SPLITS, BadImage, Manifest
from temper.data.remote_shards import published
from temper.data.whole import whole_folder
from temper.data.writer import Writer
from temper.errors import DataError, ShardError
from temper.records import write_atomic
from temper.seeds import derive_seed

Progress = Callable[[int, int], None]


def write_shards(
    source: Path,
    destination: Path,
    *,
    name: str | None = None,
    size: int | None = None,
    seed: int = 0,
    val_frac: float = 0.15,
    test_frac: float = 0.2,
    max_bad_frac: float = 0.01,
    images_per_shard: int = 2048,
    labels: Path | None = None,
    group: str | None = None,
    group_near_duplicates: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Turn class folders, or images with a table of labels, into shards and a manifest.

    ``labels`` is a table elsewhere than ``metadata.csv``; ``group`` a regular expression whose first part in
    parentheses is the group of a file, from its name. ``group_near_duplicates``: they too share a split.

    Rows are in a seeded random order, so that a stream that reads neighbours together is well mixed.
    ``destination`` appears whole or not at all; in S3, its manifest does.

    Raises:
        DataError: a setting out of range, folders that are not class folders, a table that does not fit
            the files, or a class too small for the splits.
        ShardError: ``destination`` exists or cannot be written, or more than ``max_bad_frac`` of the
            images are unusable.
    """
    _check_settings(size, val_frac, test_frac, max_bad_frac, images_per_shard)
    with published(destination) as folder:
        scan = scan_source(source, labels, group)
        with whole_folder(folder) as writing:
            writer = Writer(writing, scan.classes, scan.attributes, images_per_shard, group_near_duplicates)
            reader = _Reader(source.resolve(), size)
            # Not per image: filters are global, and threads that set and restore them leave them changed.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")
                bad = _write_images(reader, scan.files, writer, seed, max_bad_frac, on_progress)
            manifest = writer.manifest(name or source.resolve().name, seed, val_frac, test_frac, bad)
            manifest = manifest.model_copy(
                update={"refused": [_stray(path) for path in scan.strays], "num_notes": scan.num_notes}
            )
            write_atomic(writing / "manifest.json", manifest.model_dump_json(indent=1))
    return manifest


def _check_settings(
    size: int | None, val_frac: float, test_frac: float, max_bad_frac: float, images_per_shard: int
) -> None:
    for name, frac in {"val_frac": val_frac, "test_frac": test_frac}.items():
        if not 0 < frac < 1:
            raise DataError(f"{name}: expected a fraction between 0 and 1, got {frac:g}")
    if not 0 <= max_bad_frac <= 1:
        raise DataError(f"max_bad_frac: expected a fraction 0..1, got {max_bad_frac:g}")
    for name, count in {"size": size, "images_per_shard": images_per_shard}.items():
        if count is not None and count < 1:
            raise DataError(f"{name}: expected at least 1, got {count}")


def _write_images(
    reader: "_Reader",
    files: list[ImageFile],
    writer: Writer,
    seed: int,
    max_bad_frac: float,
    on_progress: Progress | None,
) -> list[BadImage]:
    bad: list[BadImage] = []
    done = 0
    for split in SPLITS:
        members = [file for file in files if file.split == split]
        order = np.random.default_rng(derive_seed(seed, "rows", split)).permutation(len(members))
        for file, result in reader.read_all([members[index] for index in order]):
            done += 1
            if on_progress is not None:
                on_progress(done, len(files))
            if isinstance(result, Encoded):
                writer.add(file, result)
                continue
            bad.append(BadImage(path=printable(file.relative), reason=result))
            if len(bad) > max_bad_frac * len(files):
                raise ShardError(_too_many_bad(bad, len(files), max_bad_frac))
        writer.end_split(split)
    return sorted(bad, key=lambda image: image.path)


def _too_many_bad(bad: list[BadImage], total: int, max_bad_frac: float) -> str:
    listed = "\n".join(f"  {image.path}: {image.reason}" for image in bad[:10])
    return (
        f"more than {max_bad_frac:.1%} of {total} images cannot be used (--max-bad raises the limit); "
        f"the first of them:\n{listed}"
    )


def _stray(path: str) -> BadImage:
    return BadImage(path=printable(path), reason="lies in no class folder")


def printable(path: str) -> str:
    """``path`` with the bytes that are not UTF-8 written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class _Reader:
    """Reads image files, several at a time."""

    root: Path
    """Resolved; files that lie elsewhere are refused."""
    size: int | None
    within: dict[Path, bool] = field(default_factory=dict)
    """Folder -> whether it lies in ``root``; looked up once each, not for every file."""

    def read_all(self, files: list[ImageFile]) -> Iterator[tuple[ImageFile, Encoded | str]]:
        """Each file with its encoded image, or with the reason why there is none, in order."""
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(files), 512):
                chunk = files[start : start + 512]
                yield from zip(chunk, pool.map(self._read, chunk), strict=True)

    def _leads_out(self, path: Path) -> bool:
        if path.is_symlink():
            return path.exists() and not path.resolve().is_relative_to(self.root)
        folder = path.parent
        if folder not in self.within:
            self.within[folder] = folder.resolve().is_relative_to(self.root)
        return not self.within[folder]

    def _read(self, file: ImageFile) -> Encoded | str:
        if printable(file.relative) != file.relative:
            return "its name is not UTF-8"
        try:
            if self._leads_out(file.path):
                return "a link that leads out of the source folder"
            return encode(file.path, self.size)
        except OSError as problem:
            return f"cannot be read ({problem.strerror})"
        except ValueError as problem:
            return str(problem)
