"""Shards in S3: a shard is copied here once, under its SHA-256, for whoever on this machine reads its images.

Not read in place: images are read again in every epoch, and the digest of a whole shard needs all of it.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from temper.data.integrity import AGAIN, check_unchanged
from temper.data.manifest import Manifest, ShardFile
from temper.errors import ShardError, StorageError
from temper.storage import (
    Address,
    cache_folder,
    download,
    is_remote,
    list_objects,
    process_lock,
    read_bytes,
    read_opened,
    upload,
)

Result = TypeVar("Result")


def read_manifest(path: Path) -> bytes:
    """``manifest.json`` of the shards at ``path``.

    Raises:
        OSError: it cannot be read; FileNotFoundError: it is not there.
        StorageError: the storage cannot be reached.
    """
    if not is_remote(path):
        return (path / "manifest.json").read_bytes()
    content = read_bytes(Address.parse(path) / "manifest.json")
    if content is None:
        raise FileNotFoundError(str(path))
    return content


def sizes_of(path: Path, manifest: Manifest) -> dict[str, int]:
    """Bytes of those shards that are there.

    Raises:
        StorageError: the storage cannot be reached.
    """
    if is_remote(path):
        return {one.name: one.size for one in list_objects(Address.parse(path))}
    files = {shard.file: path / shard.file for shard in manifest.shards}
    return {name: file.stat().st_size for name, file in files.items() if file.is_file()}


def copy_of(path: Path, shard: ShardFile) -> Path:
    """A local file with the content of ``shard``: the cached copy, or, of shards of this machine, itself.

    Raises:
        ShardError: the object in S3 is missing, or its SHA-256 is not that of the manifest.
        StorageError: the storage cannot be reached, or the cache not be written.
    """
    if not is_remote(path):
        return path / shard.file
    cached, address = _cached(shard), Address.parse(path) / shard.file
    try:
        check_unchanged(cached, shard)  # costs a look at the file, where this process has read it before
    except ShardError:
        with process_lock(cached):  # one process fetches, the others wait and find it
            _fetch(address, cached, shard)
    return cached


def _fetch(address: Address, cached: Path, shard: ShardFile) -> None:
    if cached.exists():
        try:
            return check_unchanged(cached, shard)
        except ShardError:
            cached.unlink(missing_ok=True)  # damaged on this disk
    try:
        download(address, cached)
        check_unchanged(cached, shard)
    except FileNotFoundError:
        raise ShardError(f"{address}: the manifest names this shard, but it is missing{AGAIN}") from None
    except ShardError:
        cached.unlink(missing_ok=True)
        raise ShardError(f"{address}: changed since it was written (SHA-256 differs){AGAIN}") from None


def _cached(shard: ShardFile) -> Path:
    return cache_folder() / "shards" / f"{shard.sha256}.parquet"


def read_in_place(path: Path, shard: ShardFile, read: Callable[[Any], Result]) -> Result:
    """What ``read`` makes of the opened shard; few bytes of it, so that none is copied for them.

    Raises:
        StorageError: the storage cannot be reached.
    """
    if not is_remote(path) or _cached(shard).exists():
        return read(copy_of(path, shard))
    return read_opened(Address.parse(path) / shard.file, read)


@contextmanager
def published(destination: Path) -> Iterator[Path]:
    """Where to write new shards for ``destination``; those for S3 are copied there, the manifest last.

    Raises:
        ShardError: there is something at ``destination`` already.
        StorageError: the storage cannot be reached.
    """
    if not is_remote(destination):
        if destination.exists():
            raise ShardError(f"{destination}: already exists; remove it, or choose another folder")
        yield destination
        return
    address = Address.parse(destination)
    if list_objects(address):
        raise ShardError(f"{address}: already exists; remove it, or choose another prefix")
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        base = Path(tempfile.mkdtemp(prefix="shards-", dir=cache_folder()))
    except OSError as problem:
        raise StorageError(f"{cache_folder()}: cannot be written ({problem.strerror})") from None
    try:
        folder = base / "shards"
        yield folder
        names = sorted(file.name for file in folder.iterdir() if file.name != "manifest.json")
        for name in (*names, "manifest.json"):
            upload(folder / name, address / name)
    finally:
        shutil.rmtree(base, ignore_errors=True)
