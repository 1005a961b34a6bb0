"""Objects in S3, read and written whole, through PyArrow's filesystem and with patience."""

import functools
import mmap
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from temper.addresses import Address, endpoint
from temper.errors import StorageError
from temper.storage.retry import Result, Retry, persist

PART_BYTES = 16 * 2**20
"""Of a file: asked for, or sent, at once; each part of a download is tried again by itself."""
CONNECT_S = 10


@dataclass(frozen=True)
class Object:
    """A file under an address."""

    name: str
    """Relative to what was listed."""
    size: int
    changed_ns: int


def system() -> Any:
    """PyArrow's filesystem. Credentials, region and endpoint are those of the environment (``AWS_...``)."""
    names = (
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    )
    seen = tuple(os.environ.get(name) for name in names)  # another key, another connection
    return _connect(endpoint(), seen[0] or seen[1], Retry.of_environment().request_s, os.getpid(), seen)


@functools.lru_cache(maxsize=4)
def _connect(url: str | None, region: str | None, request_s: float, _process: int, _keys: Any) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    scheme, _, host = (url or "").partition("://")
    options = {"endpoint_override": host.rstrip("/"), "scheme": scheme} if host else {}
    return S3FileSystem(
        region=region,
        connect_timeout=min(CONNECT_S, request_s),
        request_timeout=request_s,
        retry_strategy=AwsStandardS3RetryStrategy(0),  # ours tells what is worth it, and ends
        allow_delayed_open=True,  # one request for a small file
        **options,
    )


def list_objects(address: Address) -> list[Object]:
    """Every file under ``address``, sorted by name; none where nothing is there.

    Raises:
        StorageError: it cannot be listed.
    """
    from pyarrow.fs import FileSelector, FileType

    def work() -> list[Any]:
        return list(system().get_file_info(FileSelector(address.place, recursive=True)))

    try:
        listed = persist(work, address, "listed")
    except FileNotFoundError:
        return []
    start = len(address.place) + 1
    found = [
        Object(item.path[start:], item.size, item.mtime_ns or 0)
        for item in listed
        if item.type == FileType.File
    ]
    safe = [one for one in found if not {"", ".", ".."} & set(one.name.split("/")) and "\\" not in one.name]
    return sorted(safe, key=lambda one: one.name)


def find(address: Address) -> Object | None:
    """The file at ``address``; ``None`` where none is there.

    Raises:
        StorageError: it cannot be asked for.
    """
    from pyarrow.fs import FileType

    info = persist(lambda: system().get_file_info(address.place), address, "read")
    name = PurePosixPath(address.place).name
    return Object(name, info.size, info.mtime_ns or 0) if info.type == FileType.File else None


def read_bytes(address: Address) -> bytes | None:
    """All of a file; ``None`` where it is not there.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return read_opened(address, lambda file: _whole(file.read(), file.size()))
    except FileNotFoundError:
        return None


def read_opened(address: Address, read: Callable[[Any], Result]) -> Result:
    """What ``read`` makes of the opened file; it is called again where the storage fails.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it cannot be read.
    """

    def work() -> Result:
        with system().open_input_file(address.place) as file:
            return read(file)

    return persist(work, address, "read")


def _whole(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise OSError(f"{len(content)} bytes of {size} arrived")
    return content


def write_bytes(address: Address, content: bytes) -> None:
    """Put a whole file; a reader sees the previous one or this one.

    Raises:
        StorageError: it cannot be written.
    """
    persist(lambda: _put(address, lambda file: file.write(content), len(content)), address, "written")


def upload(path: Path, address: Address) -> None:
    """Put a file of this machine that does not change meanwhile.

    Raises:
        StorageError: it cannot be written.
    """
    size = path.stat().st_size

    def send(file: Any) -> None:
        if size == 0:
            return
        # Mapped: reading it cannot fail in the middle, when closing would complete a file cut short.
        with path.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for start in range(0, size, PART_BYTES):
                file.write(content[start : start + PART_BYTES])

    persist(lambda: _put(address, send, size), address, "written")


def _put(address: Address, send: Callable[[Any], Any], size: int) -> None:
    with system().open_output_stream(address.place) as file:
        send(file)
    found = system().get_file_info(address.place)
    if found.size != size:
        raise OSError(f"{found.size} bytes of {size} arrived")


def download(address: Address, path: Path, found: Object | None = None) -> None:
    """Fetch a file to ``path``, whole or not at all; its time of change is that in the storage.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it cannot be read, or ``path`` not be written.
    """
    found = found or find(address)
    if found is None:
        raise FileNotFoundError(str(address))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if found.size <= PART_BYTES:
            temporary.write_bytes(_part(address, found.size, 0))
        else:
            _download_parts(address, found, temporary)
        os.utime(temporary, ns=(found.changed_ns, found.changed_ns))
        temporary.replace(path)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise StorageError(
            f"{path}: the copy of {address} cannot be written ({problem.strerror}); set TEMPER_CACHE "
            "to another folder for copies"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _download_parts(address: Address, found: Object, path: Path) -> None:
    with path.open("wb") as target:
        for start in range(0, found.size, PART_BYTES):
            target.write(_part(address, found.size, start))
    now = find(address)
    if now is None or (now.size, now.changed_ns) != (found.size, found.changed_ns):
        raise StorageError(f"{address}: changed while it was read; run the same command again")


def _part(address: Address, size: int, start: int) -> bytes:
    count = min(PART_BYTES, size - start)
    return read_opened(address, lambda file: _whole(file.read_at(count, start) if count else b"", count))


def delete(address: Address) -> None:
    """Remove a file, if it is there.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        persist(lambda: system().delete_file(address.place), address, "removed")
    except FileNotFoundError:
        return
