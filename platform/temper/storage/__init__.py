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
from temper.storage.fetch import RUNS_WITHIN, UNREAD, beside, exists, fetched, fetched_state
from temper.storage.mirror import mirrored, publish
from temper.storage.objects import (
    delete,
    download,
    list_objects,
    read_bytes,
    read_opened,
    upload,
    write_bytes,
)
from temper.storage.place import Place, from_run
from temper.storage.scope import process_lock

__all__ = [
    "RUNS_WITHIN",
    "UNREAD",
    "Address",
    "Place",
    "address_of",
    "beside",
    "cache_folder",
    "delete",
    "download",
    "exists",
    "fetched",
    "fetched_state",
    "from_run",
    "in_words",
    "is_remote",
    "list_objects",
    "local_path",
    "mirrored",
    "named",
    "portable",
    "process_lock",
    "publish",
    "read_bytes",
    "read_opened",
    "upload",
    "write_bytes",
]
