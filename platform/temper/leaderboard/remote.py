"""Records that lie in S3: what a board reads of them is copied to its folder first."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from temper.errors import UsageError
from temper.records import write_atomic

REMOTE = re.compile(r"^s3:/{1,2}(?P<place>[^/].*?)/?$")
"""Paths lose one of two slashes."""
READ = frozenset(
    {
        "record.json",
        "crossval.json",
        "outcomes.parquet",
        "figure.png",
        "recipe.yaml",
        "entry.json",
        "verification.json",
    }
)
"""Files that a board or a card is made from; checkpoints and shards stay where they are."""
MAX_BYTES = 256 * 2**20
"""Of one file."""


def is_remote(path: Path) -> bool:
    """Whether ``path`` names a place in S3."""
    return REMOTE.match(path.as_posix()) is not None


def fetch(path: Path, into: Path) -> Path:
    """Copy what a board reads under ``s3://bucket/prefix`` to ``into/bucket/prefix``, which comes back.

    Credentials, region and endpoint are those of the environment (``AWS_...``), as every S3 tool reads them.

    Raises:
        UsageError: nothing there, or no way to get there.
    """
    found = REMOTE.match(path.as_posix())
    assert found is not None
    place, url = found["place"], f"s3://{found['place']}"
    try:
        source = _open()
        files = _list(source, place)
        for name in files:
            target = into / PurePosixPath(name)
            write_atomic(target, _read(source, name))
    except OSError as problem:
        raise UsageError(f"{url}: cannot be read ({_in_short(problem)})") from None
    if not files:
        raise UsageError(f"{url}: no record.json, nor anything else that a board reads")
    return into / PurePosixPath(place)


def _open() -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    scheme, _, host = (endpoint or "").partition("://")
    options = {"endpoint_override": host.rstrip("/"), "scheme": scheme} if host else {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return S3FileSystem(
        region=region,
        connect_timeout=10,
        request_timeout=30,
        retry_strategy=AwsStandardS3RetryStrategy(5),
        **options,
    )


def _list(source: Any, place: str) -> list[str]:
    from pyarrow.fs import FileSelector, FileType

    if PurePosixPath(place).name in READ and source.get_file_info(place).type == FileType.File:
        parent = PurePosixPath(place).parent
        return [str(parent / name) for name in sorted(READ) if _is_file(source, str(parent / name))]
    listed = source.get_file_info(FileSelector(place, recursive=True))
    names = (item for item in listed if item.type == FileType.File and item.base_name in READ)
    return sorted(item.path for item in names if ".." not in PurePosixPath(item.path).parts)


def _is_file(source: Any, name: str) -> bool:
    from pyarrow.fs import FileType

    return bool(source.get_file_info(name).type == FileType.File)


def _read(source: Any, name: str) -> bytes:
    with source.open_input_file(name) as file:
        if file.size() > MAX_BYTES:
            raise OSError(f"{name} has {file.size()} bytes, more than {MAX_BYTES}")
        return bytes(file.read())


def _in_short(problem: OSError) -> str:
    """The first sentence: what follows may be a page of XML."""
    return str(problem).splitlines()[0][:300]
