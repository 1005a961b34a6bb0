"""What tells one set of images from another."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from temper.data.manifest import Split
from temper.data.shard_set import ShardSet


def fingerprint_of(
    classes: Sequence[str],
    digests: Sequence[str],
    labels: Sequence[int],
    splits: Mapping[Split, Sequence[int]],
) -> str:
    """16 hex digits over the classes, every image's SHA-256 and label, and the rows of the splits."""
    content = [classes, list(zip(digests, labels, strict=True)), splits]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def read_fingerprint(shards: ShardSet) -> str:
    """The fingerprint of what is in the shards, whatever their manifest says it is.

    Raises:
        ShardError: a file that is damaged.
    """
    digests = [digest.hex() for digest in shards.digests]
    return fingerprint_of(shards.classes, digests, shards.labels.tolist(), shards.manifest.splits)
