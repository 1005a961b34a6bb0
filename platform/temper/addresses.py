"""What ``s3://bucket/key`` means here, and the local folder that stands for it."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from temper.credentials import mask
from temper.errors import StorageError

BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{2,254}$")
REMOTE = re.compile(r"^s3:/{1,2}(?P<place>[^/].*?)/*$")
"""Paths lose one of two slashes."""


@dataclass(frozen=True)
class Address:
    """A place in S3; ``key`` is empty for the whole bucket."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str | Path) -> Self:
        """Read ``s3://bucket/prefix``.

        Raises:
            StorageError: no bucket, or parts that would lead elsewhere on a disk.
        """
        found = REMOTE.match(_slashes(text))
        parts = found["place"].split("/") if found else []
        is_plain = not any(part in ("", ".", "..") or set("\\?") & set(part) for part in parts)
        if not (parts and is_plain and BUCKET.match(parts[0])):
            raise StorageError(
                f"{mask(_slashes(text))}: expected s3://bucket/prefix, without '.', '..' or empty parts; "
                "keys, region and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL)"
            )
        return cls(parts[0], "/".join(parts[1:]))

    def __str__(self) -> str:
        return f"s3://{self.place}"

    def __truediv__(self, name: str) -> "Address":
        return Address(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def place(self) -> str:
        """As PyArrow's filesystem names it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket


def _slashes(text: str | Path) -> str:
    return text.as_posix() if isinstance(text, Path) else text


def is_remote(path: str | Path) -> bool:
    """Whether this names a place in S3."""
    return REMOTE.match(_slashes(path)) is not None


def cache_folder() -> Path:
    """Where copies of what lies in S3 are kept: ``TEMPER_CACHE``, or ``temper`` among the user's caches."""
    base = os.environ.get("TEMPER_CACHE")
    if not base:
        base = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "temper")
    return Path(base).absolute().resolve()


def endpoint() -> str | None:
    """The storage's address where it is not that of AWS, as every S3 tool reads it."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def stage_root() -> Path:
    """The folder whose ``bucket/key`` stands for ``s3://bucket/key``; another storage has another one."""
    elsewhere = endpoint()
    tag = "aws" if elsewhere is None else hashlib.sha256(elsewhere.encode()).hexdigest()[:8]
    return cache_folder() / "s3" / tag


def address_of(path: str | Path) -> Address | None:
    """The address that ``path`` is, or whose local folder it is in; ``None`` for all others."""
    if is_remote(path):
        return Address.parse(path)
    local, root = Path(path), stage_root()
    if not local.is_absolute() or not local.is_relative_to(root) or local == root:
        return None
    return Address.parse(f"s3://{local.relative_to(root).as_posix()}")


def local_path(path: Path) -> Path:
    """Where ``path`` is on this machine; nothing is fetched."""
    return stage_root() / Address.parse(path).place if is_remote(path) else path


def portable(path: Path) -> Path:
    """A path that means the same in a process elsewhere: an address, or an absolute path."""
    address = address_of(path)
    return path.resolve() if address is None else Path(str(address))


def named(path: str | Path) -> str:
    """How a path is written for people and in recipes: with both slashes, and never that of a copy."""
    address = address_of(path)
    return str(path) if address is None else str(address)


def in_words(text: str) -> str:
    """A message with the addresses of what it names copies of."""
    return re.sub(
        rf"{re.escape(str(stage_root()))}/(?=\w)", "s3://", re.sub(r"\bs3:/(?=[^/\s])", "s3://", text)
    )
