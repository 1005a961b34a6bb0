"""Writing shards: from images to Parquet files and a manifest."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from temper.credentials import on_a_line
from temper.data.encode import Encoded
from temper.data.folders import ImageFile, Scan
from temper.data.manifest import SPLITS, BadImage, Manifest
from temper.data.opening import check_limit, pixel_limit
from temper.data.reading import Reader, SetDepth, printable
from temper.data.remarks import Remarks
from temper.data.remote_shards import published
from temper.data.sources import opened_source
from temper.data.whole import whole_folder
from temper.data.writer import Writer
from temper.defaults import MAX_BAD_FRAC
from temper.errors import DataError, ShardError
from temper.records import Depth, write_atomic
from temper.seeds import derive_seed

Progress = Callable[[int, int], None]
STRAY_FRAC = 0.1
"""A larger share of files beside the classes than this counts as a mistake."""


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
    max_bad_frac: float = MAX_BAD_FRAC,
    images_per_shard: int = 2048,
    labels: Path | None = None,
    group: str | None = None,
    group_near_duplicates: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Turn class folders, images with a table of labels, or an archive of them, into shards and a manifest.

    ``labels`` is a table elsewhere than ``metadata.csv``; ``group`` a regular expression whose first part in
    parentheses is the group of a file, from its name. ``group_near_duplicates``: they too share a split.

    Rows are in a seeded random order, so that a stream that reads neighbours together is well mixed.
    ``destination`` appears whole or not at all; in S3, its manifest does. ``depth`` says how images of more
    than 8 bits are scaled; ``None``: as the largest value of the set asks for.
    ``max_pixels`` raises Pillow's limit for files that are reduced to ``size``; ``follow_links`` reads what
    links lead to, also outside of ``source``.

    Raises:
        DataError: a setting out of range, folders that are not class folders, a table that does not fit
            the files, or a class too small for the splits.
        ShardError: ``destination`` exists or cannot be written, or more than ``max_bad_frac`` of the
            images are unusable: skipped, or refused as entries of an archive. Files beside the classes may
            be a tenth of all.
    """
    _check_settings(size, val_frac, test_frac, max_bad_frac, images_per_shard)
    check_limit(max_pixels, is_reduced=size is not None)
    with published(destination) as folder, opened_source(source, folder) as given:
        scan = given.scan(labels, group, follow_links=follow_links)
        limit = _Limit(max_bad_frac, scan, given.refused)
        with whole_folder(folder) as writing:
            writer = Writer(writing, scan.classes, scan.attributes, images_per_shard, group_near_duplicates)
            own_depth = SetDepth(depth, [file.path for file in scan.files])
            reader = Reader(None if follow_links else given.folder.resolve(), size, own_depth)
            # Not per image: filters are global, and threads that set and restore them leave them changed.
            with warnings.catch_warnings(), pixel_limit(max_pixels):
                warnings.filterwarnings("ignore", module="PIL|pydicom")
                remarks = _write_images(reader, scan.files, writer, seed, limit, on_progress)
            own_depth.check_used()
            remarks.warn(source, scan.classes, writer.thumbnails)
            manifest = writer.manifest(name or given.name, seed, val_frac, test_frac, remarks.skipped)
            update = {"refused": limit.refused, "num_notes": len(scan.notes)}
            update |= {"depth": own_depth.found, "partly": remarks.partly, "origins": remarks.origins}
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
    writer: Writer,
    seed: int,
    limit: "_Limit",
    on_progress: Progress | None,
) -> Remarks:
    remarks = Remarks()
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
                remarks.add(file, result)
                continue
            bad.append(BadImage(path=printable(file.relative), reason=result))
            limit.check(bad)
        writer.end_split(split)
    for listed in (remarks.skipped, remarks.partly):
        listed.sort(key=lambda image: image.path)
    return remarks


class _Limit:
    """How many files may be of no use: of the classes, and with a wider limit, of those beside them too."""

    def __init__(self, frac: float, scan: Scan, entries: list[BadImage]) -> None:
        """``entries`` of an archive that were refused.

        Raises:
            ShardError: there are too many before any image is read.
        """
        strays = [BadImage(path=printable(path), reason="lies in no class folder") for path in scan.strays]
        self.refused = [*entries, *strays]
        self._num_files = len(scan.files)
        self._rules = ((frac, "images", entries), (max(frac, STRAY_FRAC), "files", self.refused))
        self.check([])

    def check(self, skipped: list[BadImage]) -> None:
        """Count what was skipped and what was refused.

        Raises:
            ShardError: there are too many.
        """
        for frac, what, refused in self._rules:
            total = self._num_files + len(refused)
            if len(skipped) + len(refused) > frac * total:
                listed = "\n".join(
                    f"  {on_a_line(one.path)}: {one.reason}" for one in [*skipped, *refused][:10]
                )
                raise ShardError(
                    f"{len(skipped)} skipped so far, {len(refused)} refused: more than {frac:.1%} of {total} "
                    f"{what} cannot be used (--max-bad raises the limit); the first of them:\n{listed}"
                )
