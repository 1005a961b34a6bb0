"""What tells one set of images from another."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from temper.data.manifest import Split


def fingerprint_of(
    classes: Sequence[str],
    digests: Sequence[str],
    labels: Sequence[int],
    splits: Mapping[Split, Sequence[int]],
) -> str:
    """16 hex digits over the classes, every image's SHA-256 and label, and the rows of the splits."""
    content = [classes, list(zip(digests, labels, strict=True)), splits]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
