"""The gate on evaluated images that lie in training too, or belong to a group that does."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from temper.data import (
    Images,
    ImageView,
    ShardSet,
    Split,
    decode_rows,
    paths_of,
    rows_within,
    shared_groups,
    shared_pictures,
)
from temper.records import GateRecord

NAME = "leakage"
NUM_NAMED = 5
MAX_COMPARED = 200_000
"""Training and validation images that are decoded to be compared with further test sets."""


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
    todo = "remove the copies" if not groups else "move each group into one split"
    return _leaking(NAME, seen, todo, allowed)


def _leaking(name: str, seen: str, todo: str, allowed: bool) -> GateRecord:
    """The gate ``name`` where what was ``seen`` leaks."""
    if allowed:
        return GateRecord(name=name, passed=True, detail=f"allowed by evaluation.allow_leakage: {seen}")
    detail = f"{seen}. {todo} and make new shards, or accept them with --allow-leakage"
    return GateRecord(name=name, passed=False, detail=detail)


def leakage_gates_of_tests(
    shards: ShardSet, tests: Mapping[str, Images], view: ImageView, allowed: bool
) -> list[GateRecord]:
    """Whether each of ``tests`` is apart from the training and validation images of ``shards``.

    Pixels are compared as the model sees them, so that equal files are found too. Names of groups are not:
    two sites may use the same ones for different patients.
    """
    if not tests:
        return []
    rows = np.sort(np.concatenate([shards.rows("train"), shards.rows("val")]))
    if len(rows) > MAX_COMPARED:
        detail = f"not looked for: {len(rows)} training and validation images, more than {MAX_COMPARED}"
        return [GateRecord(name=f"{NAME}, {name}", passed=True, detail=detail) for name in tests]
    wanted = {name: _digests(images.images) for name, images in tests.items()}
    found = _rows_of(shards, rows, {digest for own in wanted.values() for digest in own}, view)
    return [_gate_of_test(shards, name, own, found, allowed) for name, own in wanted.items()]


def _gate_of_test(
    shards: ShardSet, name: str, digests: Sequence[bytes], found: Mapping[bytes, int], allowed: bool
) -> GateRecord:
    leaked = [digest for digest in digests if digest in found]
    seen = f"{len(leaked)} of {len(digests)} images lie in train or val of the target too"
    if not leaked:
        return GateRecord(name=f"{NAME}, {name}", passed=True, detail=seen)
    rows = np.array(sorted({found[digest] for digest in leaked}), np.int64)
    paths = paths_of(shards, rows[:NUM_NAMED]) or [""] * len(rows[:NUM_NAMED])
    named = [path or f"row {row}" for path, row in zip(paths, rows.tolist(), strict=False)]
    seen += f": there they are {'; '.join(named)}{'; ...' if len(rows) > NUM_NAMED else ''}"
    return _leaking(f"{NAME}, {name}", seen, "remove the copies", allowed)


def _rows_of(shards: ShardSet, rows: np.ndarray, wanted: set[bytes], view: ImageView) -> dict[bytes, int]:
    """Digest of ``wanted`` -> the first of the ascending ``rows`` (N,) with these pixels."""
    found: dict[bytes, int] = {}
    for group in shards.row_groups:
        mine = rows_within(rows, group)
        if len(mine):
            images = decode_rows(shards, group, mine, view).images
            for digest, row in zip(_digests(images), mine.tolist(), strict=True):
                if digest in wanted:
                    found.setdefault(digest, row)
    return found


def _digests(images: np.ndarray) -> list[bytes]:
    """SHA-256 of the pixels of each of ``images`` (N,3,H,W)."""
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images]


def _listed(found: Sequence[object]) -> str:
    return f"{'; '.join(map(str, found[:NUM_NAMED]))}{'; ...' if len(found) > NUM_NAMED else ''}"
