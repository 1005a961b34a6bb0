"""Stratified folds of a set of images, in which copies of an image are never apart."""

import hashlib
import json
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from temper.data.manifest import SPLITS, Manifest, Split
from temper.data.shard_set import ShardSet
from temper.errors import RecipeError
from temper.seeds import derive_seed
from temper.spec import Spec
from temper.storage import named


class FoldSpec(Spec):
    """One fold of a cross-validation: fold ``index`` of ``count`` is tested, the rest trains and validates.

    Images of all splits are dealt anew into folds of equal size in which every class keeps its share.
    Which patient or scene an image shows is not known here: only copies stay together, files of the same
    bytes or pixels.
    """

    index: int = Field(ge=0)
    """From 0."""
    count: int = Field(ge=2, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the folds alone: runs with other seeds meet the same folds."""
    keep_test: bool = False
    """Leave the official test images out of every fold, for as long as recipes are still being chosen."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"fold index {self.index} of {self.count} folds; allowed: 0..{self.count - 1}")
        return self

    @property
    def label(self) -> str:
        """Such as ``fold 1 of 5``."""
        return f"fold {self.index + 1} of {self.count}"

    def apply(self, shards: ShardSet) -> ShardSet:
        """The same shards with the splits of this fold, and a name and a fingerprint of their own.

        The validation images are as large a share of the rest as the manifest's are of its own.

        Raises:
            RecipeError: a class has too few different images to be in every split.
        """
        manifest = shards.manifest
        pooled: list[Split] = ["train", "val"] if self.keep_test else list(SPLITS)
        rows = np.sort(np.concatenate([shards.rows(split) for split in pooled]))
        labels, groups = shards.labels[rows], shards.groups[rows]
        fold_of = deal(labels, groups, self.count, derive_seed(self.seed, "folds"))
        is_test = fold_of == self.index
        rest = np.flatnonzero(~is_test)
        num_train, num_val = (len(shards.rows(split)) for split in ("train", "val"))
        is_val = np.zeros(len(rows), bool)
        drawn = draw_share(
            labels[rest],
            groups[rest],
            num_val / (num_train + num_val),
            derive_seed(self.seed, "fold-val", self.index),
        )
        is_val[rest[drawn]] = True
        chosen = {"train": ~is_test & ~is_val, "val": is_val, "test": is_test}
        folds = [labels[fold_of == index] for index in range(self.count)]
        self._check(shards, labels, [*folds, labels[chosen["train"]], labels[is_val]])
        splits = {name: rows[mask].tolist() for name, mask in chosen.items()}
        return ShardSet(shards.path, self._manifest(manifest, splits, shards.labels))

    def _check(self, shards: ShardSet, labels: np.ndarray, parts: list[np.ndarray]) -> None:
        """See that every class is in each of ``parts``, the labels of all folds and of this one's rest."""
        for label, name in enumerate(shards.classes):
            if not all(label in part for part in parts):
                count = int(np.sum(labels == label))
                raise RecipeError(
                    f"data.fold.count: class '{name}' of {named(shards.path)} has {count} image(s), "
                    f"too few distinct ones for {self.count} folds and their validation images; "
                    "use fewer folds, or add images"
                )

    def _manifest(self, base: Manifest, splits: dict[str, list[int]], labels: np.ndarray) -> Manifest:
        content = [base.fingerprint, self.model_dump(mode="json"), splits]
        counts = {
            split: np.bincount(labels[rows], minlength=len(base.classes)).tolist()
            for split, rows in splits.items()
        }
        update = {
            "name": f"{base.name}, {self.label}",
            "fingerprint": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
            "splits": splits,
            "counts": {split: dict(zip(base.classes, found, strict=True)) for split, found in counts.items()},
        }
        return base.model_copy(update=update)


def deal(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold (N,) in 0..count-1 of each image; images of one group share a fold.

    ``labels`` and ``groups`` (N,). Large groups come first, then single images class by class. Each goes
    where its classes are rarest so far, and among those folds to the smallest: without groups of several
    images, neither a class nor the whole differs by more than one image between folds.
    """
    members = _members(groups, seed)
    sizes = np.array([len(group) for group in members])
    first = np.array([labels[group[0]] for group in members])
    held = np.zeros((count, int(labels.max()) + 1), np.int64)
    fold_of = np.empty(len(labels), np.int64)
    for index in np.lexsort((first, -sizes)):
        group = members[index]
        rarity = held[:, np.unique(labels[group])].sum(1)
        fold = int(np.lexsort((held.sum(1), rarity))[0])
        fold_of[group] = fold
        np.add.at(held[fold], labels[group], 1)
    return fold_of


def draw_share(labels: np.ndarray, groups: np.ndarray, frac: float, seed: int) -> np.ndarray:
    """Sorted positions of ``frac`` of each class, rounded but at least one and never all of it.

    Groups are taken whole or not at all, in a random order, for as long as no class gets too many.
    """
    counts = np.bincount(labels)
    wanted = np.clip(np.round(counts * frac).astype(np.int64), 1, None)
    wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
    drawn: list[np.ndarray] = []
    for group in _members(groups, seed):
        found = np.bincount(labels[group], minlength=len(counts))
        if np.all(found <= wanted):
            wanted -= found
            drawn.append(group)
    return np.sort(np.concatenate([*drawn, np.empty(0, np.int64)])).astype(np.int64)


def _members(groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """The positions in each group, groups in a random order."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    members = np.split(order, starts[1:])
    return [members[index] for index in np.random.default_rng(seed).permutation(len(members))]
