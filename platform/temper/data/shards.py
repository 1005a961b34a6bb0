"""Writing shards: Parquet files in the layout that the Hugging Face hub uses for images."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from temper.data.encode import Encoded
from temper.data.fingerprint import fingerprint_of
from temper.data.folders import ImageFile
from temper.data.manifest import SPLITS, BadImage, Manifest, Origin, ShardFile, Split
from temper.data.opening import check_limit, pixel_limit
from temper.data.reading import Reader, SetDepth, printable
from temper.data.remote_shards import published
from temper.data.sources import opened_source
from temper.data.splits import copies_among, draw_splits
from temper.data.whole import whole_folder
from temper.errors import DataError, ShardError
from temper.records import Depth, sha256_of, write_atomic
from temper.seeds import derive_seed

ROW_GROUP_SIZE = 256
Progress = Callable[[int, int], None]


def write_shards(
    source: Path,
    destination: Path,
    *,
    name: str | None = None,
    size: int | None = None,
    depth: Depth | None = None,
    max_pixels: int | None = None,
    follow_links: bool = False,
    seed: int = 0,
    val_frac: float = 0.15,
    test_frac: float = 0.2,
    max_bad_frac: float = 0.01,
    images_per_shard: int = 2048,
    on_progress: Progress | None = None,
) -> Manifest:
    """Turn class folders, or an archive of them, into shards and a manifest.

    Rows are in a seeded random order, so that a stream that reads neighbours together is well mixed.
    ``destination`` appears whole or not at all; in S3, its manifest does. ``depth`` says how images of more
    than 8 bits are scaled; ``None``: as the largest value of the set asks for.
    ``max_pixels`` raises Pillow's limit for files that are reduced to ``size``; ``follow_links`` reads what
    links lead to, also outside of ``source``.

    Raises:
        DataError: a setting out of range, folders that are not class folders, or a class too small for
            the splits.
        ShardError: ``destination`` exists or cannot be written, or more than ``max_bad_frac`` of the
            images are unusable.
    """
    _check_settings(size, val_frac, test_frac, max_bad_frac, images_per_shard)
    check_limit(max_pixels, is_reduced=size is not None)
    with published(destination) as folder, opened_source(source, folder) as given:
        scan = given.scan(follow_links=follow_links)
        with whole_folder(folder) as writing:
            writer = _Writer(writing, scan.classes, images_per_shard)
            own_depth = SetDepth(depth, [file.path for file in scan.files])
            reader = Reader(None if follow_links else given.folder.resolve(), size, own_depth)
            # Not per image: filters are global, and threads that set and restore them leave them changed.
            with warnings.catch_warnings(), pixel_limit(max_pixels):
                warnings.filterwarnings("ignore", module="PIL|pydicom")
                remarks = _write_images(reader, scan.files, writer, seed, max_bad_frac, on_progress)
            own_depth.check_used()
            manifest = writer.manifest(name or given.name, seed, val_frac, test_frac, remarks.skipped)
            refused = [*given.refused, *(_stray(path) for path in scan.strays)]
            update = {"refused": refused, "num_notes": scan.num_notes, "depth": own_depth.found}
            update |= {"partly": remarks.partly, "origins": remarks.origins}
            manifest = manifest.model_copy(update=update)
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
    reader: Reader,
    files: list[ImageFile],
    writer: "_Writer",
    seed: int,
    max_bad_frac: float,
    on_progress: Progress | None,
) -> "_Remarks":
    remarks = _Remarks()
    bad = remarks.skipped
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
                remarks.add(file.relative, result)
                continue
            bad.append(BadImage(path=printable(file.relative), reason=result))
            if len(bad) > max_bad_frac * len(files):
                raise ShardError(_too_many_bad(bad, len(files), max_bad_frac))
        writer.end_split(split)
    for listed in (remarks.skipped, remarks.partly):
        listed.sort(key=lambda image: image.path)
    return remarks


@dataclass(frozen=True)
class _Remarks:
    """What is to be said of some files."""

    skipped: list[BadImage] = field(default_factory=list)
    partly: list[BadImage] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    def add(self, path: str, image: Encoded) -> None:
        if image.note is not None:
            self.partly.append(BadImage(path=path, reason=image.note))
        if image.patient or image.study:
            self.origins.append(Origin(path=path, patient=image.patient, study=image.study))


def _too_many_bad(bad: list[BadImage], total: int, max_bad_frac: float) -> str:
    listed = "\n".join(f"  {image.path}: {image.reason}" for image in bad[:10])
    return (
        f"more than {max_bad_frac:.1%} of {total} images cannot be used (--max-bad raises the limit); "
        f"the first of them:\n{listed}"
    )


def _stray(path: str) -> BadImage:
    return BadImage(path=printable(path), reason="lies in no class folder")


@dataclass
class _Writer:
    """Collects rows, writes a Parquet file whenever one is full."""

    folder: Path
    classes: list[str]
    images_per_shard: int
    labels: list[int] = field(default_factory=list)
    stored: list[Split] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    """Of each row a number that rows with the same pixels share."""
    paths: list[str] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    has_colour: bool = False
    shards: list[ShardFile] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)
    _pending: list[tuple[bytes, str, int]] = field(default_factory=list)
    _parts: list[tuple[Path, int]] = field(default_factory=list)

    def add(self, file: ImageFile, image: Encoded) -> None:
        self._pending.append((image.content, file.relative, file.label))
        self.labels.append(file.label)
        self.stored.append(file.split)
        self.digests.append(hashlib.sha256(image.content).hexdigest())
        self.groups.append(self._known.setdefault(image.pixels, len(self._known)))
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
            pq.write_table(_table(self._pending, self.classes), path, row_group_size=ROW_GROUP_SIZE)
            self._parts.append((path, len(self._pending)))
            self._pending = []

    def manifest(
        self, name: str, seed: int, val_frac: float, test_frac: float, bad: list[BadImage]
    ) -> Manifest:
        if not self.labels:
            raise DataError("no readable image at all")
        labels, groups = np.array(self.labels), np.array(self.groups)
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
            copies=copies_among(groups, self.paths, self.labels, self.classes),
        )


def _counts(labels: np.ndarray, classes: list[str]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def _table(rows: Iterable[tuple[bytes, str, int]], classes: list[str]) -> pa.Table:
    contents, paths, labels = zip(*rows, strict=True)
    image = pa.StructArray.from_arrays(
        [pa.array(contents, pa.binary()), pa.array(paths, pa.string())], names=["bytes", "path"]
    )
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({"image": image, "label": pa.array(labels, pa.int64())}).replace_schema_metadata(metadata)
