"""The files of the working folder that are sent: all that .gitignore, .rayignore and excludes leave."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from temper.cluster.jobs.address import quiet_job_client
from temper.credentials import KNOWN_KEY, secrets_of

MAX_SCANNED = 2**20
"""Bytes of a file that is searched for secrets; larger ones are data."""

PRIVATE_NAME = re.compile(
    r"(^\.env(\..+)?$|^\.netrc$|^\.pgpass$|^id_(rsa|dsa|ecdsa|ed25519)$|^auth_token$|^credentials(\.json)?$|\.(pem|key|p12|pfx)$)"
)
"""Names of files that hold keys."""
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
ANY_KEY = re.compile(KNOWN_KEY.pattern.encode())


@dataclass(frozen=True)
class Parcel:
    """The files that would be sent: their paths in the folder, and their sizes in bytes before the zip."""

    folder: Path
    files: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.files.values())

    def holds(self, path: str) -> bool:
        """Whether the file, or something in the folder, is sent."""
        wanted = os.path.normpath(path)
        return wanted in self.files or any(name.startswith(f"{wanted}/") for name in self.files)

    def largest(self, count: int) -> list[tuple[str, int]]:
        """The largest files and folders at the top level, in bytes, largest first."""
        sizes: Counter[str] = Counter()
        for name, size in self.files.items():
            top, slash, _ = name.partition("/")
            sizes[top + slash] += size
        return sizes.most_common(count)

    def secrets(self) -> Iterator[tuple[str, str]]:
        """Files that hold a key, and how it was recognised; never the key itself."""
        known = [value.encode() for value in secrets_of()]
        for name, size in self.files.items():
            if PRIVATE_NAME.search(name.rpartition("/")[2]):
                yield name, "by its name it holds keys"
            elif size <= MAX_SCANNED and (reason := _secret_in(self.folder / name, known)):
                yield name, reason


def pack(folder: Path, excludes: Sequence[str]) -> Parcel:
    """The files of ``folder`` that Ray would send, by Ray's own walk through it."""
    # Private to Ray, but its zip is made by the same function (2.60); a test compares with that zip.
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    quiet_job_client()
    files: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path.stat().st_size

    uses_gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    excluded = [_get_excludes(folder, list(excludes))]
    _dir_travel(folder, excluded, add, include_gitignore=uses_gitignore, logger=logging.getLogger("ray"))
    return Parcel(folder, files)


def _secret_in(path: Path, known: Sequence[bytes]) -> str | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None  # Ray says so itself, when it makes its zip
    if any(value in content for value in known):
        return "it holds the value of a secret variable of this environment"
    if PRIVATE_KEY.search(content):
        return "it holds a private key"
    return "it holds what looks like an access key" if ANY_KEY.search(content) else None
