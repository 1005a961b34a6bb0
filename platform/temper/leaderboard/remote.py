"""Records that lie in S3: what a board reads of them is copied to its folder first."""

from pathlib import Path, PurePosixPath

from temper.errors import StorageError, UsageError
from temper.records import EXTERNAL
from temper.storage import Address, is_remote, list_objects
from temper.storage.fetch import copy_down
from temper.storage.objects import find

__all__ = ["fetch", "is_remote"]

READ = frozenset(
    {
        "record.json",
        "crossval.json",
        "outcomes.parquet",
        "figure.png",
        "mistakes.png",
        "verdict.json",
        "recipe.yaml",
        "entry.json",
        EXTERNAL,
        "verification.json",
    }
)
"""Files that a board or a card is made from; checkpoints and shards stay where they are."""
MAX_BYTES = 256 * 2**20
"""Of one file."""


def fetch(path: Path, into: Path) -> Path:
    """Copy what a board reads under ``s3://bucket/prefix`` to ``into/bucket/prefix``, which comes back.

    Credentials, region and endpoint are those of the environment (``AWS_...``), as every S3 tool reads them.

    Raises:
        UsageError: nothing there, or no way to get there.
    """
    try:
        address = Address.parse(path)
        base, objects = address, list_objects(address)
        if not objects and PurePosixPath(address.key).name in READ and find(address) is not None:
            base = Address(address.bucket, str(PurePosixPath(address.key).parent))
            objects = [one for one in list_objects(base) if "/" not in one.name]
        wanted = [one for one in objects if PurePosixPath(one.name).name in READ]
        large = next((one for one in wanted if one.size > MAX_BYTES), None)
        if large is not None:
            raise UsageError(f"{base}/{large.name}: {large.size} bytes, more than {MAX_BYTES}")
        copy_down(base, into / base.place, wanted)
    except StorageError as problem:
        raise UsageError(str(problem)) from None
    if not wanted:
        raise UsageError(f"{address}: no record.json, nor anything else that a board reads")
    return into / address.place
