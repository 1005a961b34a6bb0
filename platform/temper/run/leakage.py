"""The gate on evaluated images that lie in training too, or belong to a group that does."""

from collections.abc import Sequence

import numpy as np

from temper.data import ShardSet, Split, shared_groups, shared_pictures
from temper.records import GateRecord

NAME = "leakage"
NUM_NAMED = 5


def leakage_gate(
    shards: ShardSet, rows: np.ndarray, split: Split, earlier: Sequence[Split], allowed: bool
) -> GateRecord:
    """Whether ``rows`` (N,) of ``split`` are apart from the splits that a model was trained and chosen on."""
    copies = shared_pictures(shards, rows, earlier)
    if copies is None:
        detail = "not looked for: these shards are of an earlier version; make new ones"
        return GateRecord(name=NAME, passed=True, detail=detail)
    where = " or ".join(earlier)
    num_leaked = len(set(rows.tolist()) & {row for one in copies for row in one.rows})
    seen = f"{num_leaked} of {len(rows)} {split} images lie in {where} too"
    seen += f": {_listed(copies)}" if copies else ""
    groups = shared_groups(shards, rows, split, earlier)
    if groups:
        num_images = sum(group.counts[split] for group in groups)
        seen += (
            f"; {len(groups)} groups with {num_images} {split} images lie in {where} too: {_listed(groups)}"
        )
    if not copies and not groups:
        return GateRecord(name=NAME, passed=True, detail=seen)
    if allowed:
        return GateRecord(name=NAME, passed=True, detail=f"allowed by evaluation.allow_leakage: {seen}")
    todo = "remove the copies" if not groups else "move each group into one split"
    detail = f"{seen}. {todo} and make new shards, or accept them with --allow-leakage"
    return GateRecord(name=NAME, passed=False, detail=detail)


def _listed(found: Sequence[object]) -> str:
    return f"{'; '.join(map(str, found[:NUM_NAMED]))}{'; ...' if len(found) > NUM_NAMED else ''}"
