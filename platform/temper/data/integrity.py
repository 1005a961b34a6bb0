"""Whether shards hold what their manifest says: cheap enough to be asked again while they are read."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from temper.data.manifest import SPLITS, Manifest, ShardFile
from temper.errors import ShardError
from temper.records import sha256_of
from temper.storage import named

AGAIN = "; copy it again, or create new shards with `temper shards SRC DST`"
WHOLE_BYTES = 128 * 2**20
"""Sets of up to so many encoded bytes are hashed whole when they are opened: half a second. Of larger ones
each shard is hashed by the process that reads its images, before it reads the first."""

_Stamp = tuple[int, int, int]
_HASHED: dict[tuple[Path, str], _Stamp] = {}
_AGREED: set[str] = set()
_LOCKS: dict[Path, threading.Lock] = {}


def check_files(folder: Path, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    """See that every shard is there in its size; ``sizes`` are those of the files of ``folder``.

    Raises:
        ShardError: a file that is missing or of another size.
    """
    for shard in manifest.shards:
        found, size = named(folder / shard.file), sizes.get(shard.file)
        if size is None:
            raise ShardError(f"{found}: the manifest names this shard, but it is missing{AGAIN}")
        if size != shard.bytes:
            raise ShardError(f"{found}: {size} bytes, the manifest says {shard.bytes}{AGAIN}")


def check_splits(file: str, manifest: Manifest) -> None:
    """See that every row is in one split at most, and that the counts are those of the splits.

    Raises:
        ShardError: a row twice or outside the shards, or counts of other splits or classes.
    """
    rows = np.array([row for split in manifest.splits.values() for row in split], dtype=np.int64)
    total = sum(shard.num_rows for shard in manifest.shards)
    if len(np.unique(rows)) < len(rows) or not np.all((rows >= 0) & (rows < total)):
        raise ShardError(f"{file}: 'splits' names a row twice, or one outside 0..{total - 1}{AGAIN}")
    for split in SPLITS:
        if split not in manifest.splits or split not in manifest.counts:
            raise ShardError(f"{file}: 'splits' and 'counts' need the split '{split}'{AGAIN}")
        if list(manifest.counts[split]) != manifest.classes:
            raise ShardError(f"{file}: 'counts.{split}' names other classes than 'classes'{AGAIN}")
    for name, found in {"copies": manifest.copies, "near_duplicates": manifest.near_duplicates}.items():
        if any(max(one.rows) >= total or len(one.paths) != len(one.rows) for one in found or ()):
            raise ShardError(
                f"{file}: '{name}' needs a path for each row, and rows within 0..{total - 1}{AGAIN}"
            )


def check_columns(file: str, columns: Mapping[str, str], attributes: Sequence[str]) -> None:
    """See that a shard has the columns of images, and those that the manifest names; Parquet types by name.

    Raises:
        ShardError: it has others.
    """
    if columns.get("image.bytes") != "BYTE_ARRAY" or columns.get("label") != "INT64":
        raise ShardError(
            f"{file}: expected the columns image {{bytes, path}} and label (int64), found "
            f"{', '.join(columns) or 'none'}; create such shards with `temper shards SRC DST`"
        )
    for name in attributes:
        if columns.get(name) != "BYTE_ARRAY":
            raise ShardError(f"{file}: the manifest names the text column '{name}', which is not here{AGAIN}")


def check_unchanged(path: Path, shard: ShardFile) -> None:
    """See that a file's SHA-256 is that of the manifest.

    A file that was hashed by this process is hashed again only where its size, inode or time of change is
    another, so that asking before every read costs one ``stat``.

    Raises:
        ShardError: it has changed since it was written, or cannot be read.
    """
    try:
        lock = _LOCKS.setdefault(path, threading.Lock())
        with lock:  # threads that read one file wait for one of them to hash it
            stamp = _stamp(path)
            if _HASHED.get((path, shard.sha256)) == stamp:
                return
            digest = sha256_of(path)
            if digest == shard.sha256:
                _HASHED[path, shard.sha256] = stamp
    except OSError as problem:
        raise ShardError(f"{path}: cannot be read ({problem.strerror}){AGAIN}") from None
    if digest != shard.sha256:
        raise ShardError(f"{path}: changed since it was written (SHA-256 differs){AGAIN}")


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_size, found.st_ino, found.st_mtime_ns


def check_content(
    file: str,
    manifest: Manifest,
    read_labels: Callable[[], np.ndarray],
    read_fingerprint: Callable[[], str],
) -> None:
    """Compare labels (N,) of all rows with the counts and, of a small set, images with the fingerprint.

    Raises:
        ShardError: the manifest claims something else than the shards hold.
    """
    # What was compared once with shards of these digests need not be compared again.
    known = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    if known in _AGREED:
        return
    _check_labels(file, manifest, read_labels())
    if is_small(manifest):
        _check_fingerprint(file, manifest.fingerprint, read_fingerprint())
        _AGREED.add(known)


def is_small(manifest: Manifest) -> bool:
    """Whether the set is hashed whole when it is opened."""
    return sum(shard.bytes for shard in manifest.shards) <= WHOLE_BYTES


def _check_labels(file: str, manifest: Manifest, labels: np.ndarray) -> None:
    classes = manifest.classes
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise ShardError(
            f"{file}: the shards have labels {labels.min()}..{labels.max()}, 'classes' has "
            f"{len(classes)} names{AGAIN}"
        )
    for split in SPLITS:
        rows = np.array(manifest.splits[split], dtype=np.int64)
        found = np.bincount(labels[rows], minlength=len(classes)).tolist()
        for name, other in zip(classes, found, strict=True):
            if manifest.counts[split][name] != other:
                raise ShardError(
                    f"{file}: 'counts.{split}' says {manifest.counts[split][name]} images of the class "
                    f"'{name}', the shards hold {other}{AGAIN}"
                )


def _check_fingerprint(file: str, claimed: str, actual: str) -> None:
    if actual != claimed:
        raise ShardError(
            f"{file}: 'fingerprint' is {claimed}, but that of the shards is {actual}: the "
            f"images or the manifest have changed{AGAIN}"
        )
