"""Places in S3: addresses, objects with retries, copies for readers, and mirrors of folders that are written.

Everything that temper reads and writes is a local file. What a user gives as ``s3://bucket/prefix`` has a
local folder whose name follows from it: readers fetch into it (``fetched``), and what is written there is
copied back by a thread (``mirrored``). For a path of this machine both do nothing.
"""

from temper.addresses import (
    Address,
    address_of,
    cache_folder,
    in_words,
    is_remote,
    local_path,
    named,
    portable,
)
from temper.storage.fetch import RUNS_WITHIN, SMALL, UNREAD, beside, exists, fetched
from temper.storage.mirror import mirrored, publish
from temper.storage.objects import download, list_objects, read_bytes, upload, write_bytes
from temper.storage.place import Place, from_run

__all__ = [
    "RUNS_WITHIN",
    "SMALL",
    "UNREAD",
    "Address",
    "Place",
    "address_of",
    "beside",
    "cache_folder",
    "download",
    "exists",
    "fetched",
    "from_run",
    "in_words",
    "is_remote",
    "list_objects",
    "local_path",
    "mirrored",
    "named",
    "portable",
    "publish",
    "read_bytes",
    "upload",
    "write_bytes",
]
