"""What images of one split share with others: pictures, and groups."""

from collections.abc import Sequence

import numpy as np

from temper.data.groups import GROUP, straddling
from temper.data.integrity import is_small
from temper.data.manifest import Copies, Split, Straddling
from temper.data.shard_set import ShardSet
from temper.data.splits import copies_among


def shared_pictures(shards: ShardSet, rows: np.ndarray, splits: Sequence[Split]) -> list[Copies] | None:
    """Copies, and near duplicates where these are grouped, that are among ``rows`` and in one of ``splits``.

    ``None``: not known, because the manifest is an older one and the set is too large to be read for it.
    """
    manifest = shards.manifest
    known = manifest.alike
    if known is None and is_small(manifest):
        names = [f"row {row}" for row in range(len(shards.labels))]
        known = copies_among(shards.copies, names, shards.labels.tolist(), shards.classes)
    theirs = {row for split in splits for row in manifest.splits[split]}
    return None if known is None else [one for one in known if one.links(set(rows.tolist()), theirs)]


def shared_groups(
    shards: ShardSet, rows: np.ndarray, split: Split, others: Sequence[Split]
) -> list[Straddling]:
    """Groups of which images are among ``rows``, those of ``split``, and in one of ``others``."""
    splits = {split: rows.tolist(), **{name: shards.manifest.splits[name] for name in others}}
    found = straddling(shards.column(GROUP), splits)
    return [group for group in found if split in group.counts and len(group.counts) > 1]
