"""Folds of a set of images, stratified or by site, in which what belongs together is never apart."""

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from temper.data.groups import SITE
from temper.data.manifest import SPLITS, Manifest, Split
from temper.data.shard_set import ShardSet
from temper.data.splits import warn_of_uneven
from temper.errors import RecipeError
from temper.seeds import derive_seed
from temper.spec import Spec
from temper.storage import named

logger = logging.getLogger(__name__)


class FoldSpec(Spec):
    """One fold of a cross-validation: fold ``index`` of ``count`` is tested, the rest trains and validates.

    Images of all splits are dealt anew into folds of equal size in which every class keeps its share.
    Copies and the images of a group, such as a patient, stay together.
    """

    index: int = Field(ge=0)
    """From 0."""
    count: int = Field(ge=2, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the folds alone: runs with other seeds meet the same folds."""
    keep_test: bool = False
    """Leave the official test images out of every fold, for as long as recipes are still being chosen."""
    by_site: bool = False
    """Each fold is a site, in alphabetical order: what is trained on all others is tested on it."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"fold index {self.index} of {self.count} folds; allowed: 0..{self.count - 1}")
        return self

    @property
    def label(self) -> str:
        """Such as ``fold 1 of 5``."""
        return f"{'site' if self.by_site else 'fold'} {self.index + 1} of {self.count}"

    def apply(self, shards: ShardSet) -> ShardSet:
        """The same shards with the splits of this fold, and a name and a fingerprint of their own.

        The validation images are as large a share of the rest as the manifest's are of its own.

        Raises:
            RecipeError: a class has too few different images for every split, or there are other sites.
        """
        manifest, rows = shards.manifest, _pooled(shards, self.keep_test)
        labels, groups = shards.labels[rows], shards.groups[rows]
        if self.by_site:
            fold_of = self._by_site(shards)
        else:
            fold_of = deal(labels, groups, self.count, derive_seed(self.seed, "folds"))
        is_test = fold_of == self.index
        is_tied = ~is_test & np.isin(groups, groups[is_test])
        if is_tied.any():
            logger.warning(
                "%s: %d images of other sites belong to a group or picture of this one and are left out",
                self.label,
                is_tied.sum(),
            )
        rest = np.flatnonzero(~is_test & ~is_tied)
        num_train, num_val = (len(shards.rows(split)) for split in ("train", "val"))
        is_val = np.zeros(len(rows), bool)
        drawn = draw_share(
            labels[rest],
            groups[rest],
            num_val / (num_train + num_val),
            derive_seed(self.seed, "fold-val", self.index),
        )
        is_val[rest[drawn]] = True
        chosen = {"train": ~is_test & ~is_tied & ~is_val, "val": is_val, "test": is_test}
        folds = [labels[fold_of == index] for index in range(self.count)]
        self._say_uneven(shards, labels, is_test)
        self._check(
            shards, labels, [*([] if self.by_site else folds), labels[chosen["train"]], labels[is_val]]
        )
        splits = {name: rows[mask].tolist() for name, mask in chosen.items()}
        return ShardSet(shards.path, self._manifest(manifest, splits, shards.labels))

    def _by_site(self, shards: ShardSet) -> np.ndarray:
        """The number (N,) of the site of each image that is pooled."""
        sites = sites_of(shards, self.keep_test)
        if len(sites) != self.count:
            raise RecipeError(
                f"data.fold.count: got {self.count}, but {named(shards.path)} has {len(sites)} sites "
                f"({', '.join(sites[:5])}{', ...' if len(sites) > 5 else ''}); allowed: {len(sites)}"
            )
        values = shards.column(SITE)
        return np.array([sites.index(values[row] or "") for row in _pooled(shards, self.keep_test)], np.int64)

    def _say_uneven(self, shards: ShardSet, labels: np.ndarray, is_test: np.ndarray) -> None:
        """Say which classes this fold has too few or too many of, or none."""
        counts = np.bincount(labels[is_test], minlength=len(shards.classes))
        if not self.by_site:
            wanted = np.bincount(labels, minlength=len(shards.classes)) / self.count
            warn_of_uneven(self.label, counts.tolist(), wanted.tolist(), shards.classes)
        elif absent := [name for name, count in zip(shards.classes, counts, strict=True) if not count]:
            logger.warning("%s: has no image of %s", self.label, ", ".join(absent))

    def _check(self, shards: ShardSet, labels: np.ndarray, parts: list[np.ndarray]) -> None:
        """See that every class is in each of ``parts``, the labels of all folds and of this one's rest."""
        for label, name in enumerate(shards.classes):
            if not all(label in part for part in parts):
                count = int(np.sum(labels == label))
                raise RecipeError(
                    f"data.fold.count: class '{name}' of {named(shards.path)} has {count} image(s), "
                    f"too few distinct ones or groups for {self.count} folds and their validation images; "
                    "use fewer folds, or add images"
                )

    def _manifest(self, base: Manifest, splits: dict[str, list[int]], labels: np.ndarray) -> Manifest:
        own = self.model_dump(mode="json", exclude=None if self.by_site else {"by_site"})
        content = [base.fingerprint, own, splits]
        counts = {
            split: np.bincount(labels[rows], minlength=len(base.classes)).tolist()
            for split, rows in splits.items()
        }
        update = {
            "name": f"{base.name}, {self.label}",
            "fingerprint": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
            "splits": splits,
            "straddling": [],
            "counts": {split: dict(zip(base.classes, found, strict=True)) for split, found in counts.items()},
        }
        return base.model_copy(update=update)


def sites_of(shards: ShardSet, keep_test: bool = False) -> list[str]:
    """The sites of the images that folds are made of, sorted.

    Raises:
        RecipeError: there are fewer than two, or an image has none.
    """
    values = shards.column(SITE)
    found = [values[row] for row in _pooled(shards, keep_test)]
    sites = sorted({site for site in found if site is not None})
    if len(sites) < 2:
        raise RecipeError(
            f"data.fold.by_site: {named(shards.path)} has {len(sites)} sites, expected at least two; make "
            "its shards with a column 'site' in metadata.csv"
        )
    if None in found:
        raise RecipeError(
            f"data.fold.by_site: {found.count(None)} of {len(found)} images of {named(shards.path)} "
            "have no site; fill the column in and make the shards again"
        )
    return sites


def _pooled(shards: ShardSet, keep_test: bool) -> np.ndarray:
    """The rows that folds are made of, ascending."""
    pooled: list[Split] = ["train", "val"] if keep_test else list(SPLITS)
    return np.sort(np.concatenate([shards.rows(split) for split in pooled]))


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

    Groups are taken whole or not at all, in a random order, for as long as no class gets too many. A class
    of which no group fits gives its smallest.
    """
    counts = np.bincount(labels)
    wanted = np.clip(np.round(counts * frac).astype(np.int64), 1, None)
    wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
    drawn: list[np.ndarray] = []
    taken = np.zeros(len(counts), np.int64)

    def take(members: Sequence[np.ndarray], most: np.ndarray) -> list[np.ndarray]:
        """What does not fit."""
        left = []
        for group in members:
            found = np.bincount(labels[group], minlength=len(counts))
            if np.all(taken + found <= most):
                taken[:] += found
                drawn.append(group)
            else:
                left.append(group)
        return left

    left = take(_members(groups, seed), wanted)
    for label in np.flatnonzero((taken == 0) & (counts > 1)):
        own = sorted((group for group in left if taken[label] == 0 and label in labels[group]), key=len)
        for group in own:
            if taken[label] == 0:
                take([group], counts - 1)
    return np.sort(np.concatenate([*drawn, np.empty(0, np.int64)])).astype(np.int64)


def _members(groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """The positions in each group, groups in a random order."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    members = np.split(order, starts[1:])
    return [members[index] for index in np.random.default_rng(seed).permutation(len(members))]
