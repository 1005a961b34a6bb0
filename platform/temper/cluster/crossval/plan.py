"""The runs of a cross-validation, planned before it starts: every target, fold and seed with its recipe."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from temper.cluster.claim import refuse_former_batches
from temper.cluster.launch import check_model
from temper.data import FoldSpec, ShardSet, sites_of
from temper.errors import CheckpointError, RecipeError
from temper.recipe import Recipe, build_recipe, pretrain_recipe
from temper.records import CrossvalFolder, RunFolder, read_record
from temper.run.open_data import open_data
from temper.spec import Spec
from temper.storage import Place, named, portable
from temper.training import read_last


class CrossvalSpec(Spec):
    """How a recipe is cross-validated."""

    folds: int = Field(default=5, ge=2, le=1000)
    seeds: int = Field(default=3, ge=1, le=1000)
    """Of training: the recipe's seed and those after it. The folds are the same for all of them."""
    targets: tuple[Place, ...] = ()
    """Folders of shards; none: the recipe's own target."""
    keep_test: bool = False
    """Exclude the official test images from all folds."""
    by_site: bool = False
    """Leave out one site at a time, in place of ``folds`` stratified folds."""


@dataclass(frozen=True)
class PlannedRun:
    """One run: a target, a fold, a seed, and the recipe that they make."""

    target: str
    fold: int
    seed: int
    recipe: Recipe
    images: ShardSet
    """Of the fold, before any few-shot draw."""
    site: str | None = None
    """That the fold tests, where each fold is a site."""

    @property
    def key(self) -> tuple[str, int, int]:
        return self.target, self.fold, self.seed

    def folder(self, folder: CrossvalFolder) -> RunFolder:
        return folder.run(self.target, self.fold, self.seed)

    def pretrain(self, folder: CrossvalFolder) -> Path | None:
        """The run folder of its pretraining: runs whose pretraining is the same share it."""
        if self.recipe.pretrain is None:
            return None
        return portable(folder.pretrain / pretrain_recipe(self.recipe).hash)

    def is_done(self, folder: CrossvalFolder) -> bool:
        """Whether the run has its record already.

        Raises:
            CheckpointError: its folder holds another run, or one on other images.
            RecordError: its record cannot be read.
        """
        run = self.folder(folder)
        if run.record.exists():
            record = read_record(run.record)
            found = (record.recipe_hash, record.data.fingerprint)
        elif (state := read_last(run)) is not None:
            found = (state.recipe_hash, state.fingerprints["target"])
        else:
            return False
        if found[0] != self.recipe.hash:
            raise CheckpointError(
                f"{run.path}: holds a run of another recipe; choose another --out, or remove it"
            )
        if found[1] != self.images.fingerprint:
            raise CheckpointError(f"{run.path}: the images have changed since; choose another --out")
        refuse_former_batches(run.path, read_last(run), self.recipe)
        return run.record.exists()


def base_recipe(document: Mapping[str, Any], spec: CrossvalSpec, where: str) -> Recipe:
    """The recipe on its first target, without a fold.

    Raises:
        RecipeError: it is none, has a fold already, or leaves no room for the seeds.
    """
    base = build_recipe(document, {"data.target": named(spec.targets[0])} if spec.targets else {}, where)
    if base.data.fold is not None:
        raise RecipeError(f"{where}: 'data.fold': a cross-validation sets the fold itself; leave it out")
    if base.seed + spec.seeds > 2**31:
        raise RecipeError(f"{where}: 'seed': {spec.seeds} seeds from {base.seed} on exceed 2^31 - 1")
    return base


def open_targets(spec: CrossvalSpec, base: Recipe) -> dict[str, ShardSet]:
    """Name -> shards, in the order given; names are those of the folders, told apart by a number.

    Raises:
        RecipeError: a target is given twice.
        ShardError: no shards there.
    """
    paths = spec.targets or (base.data.target,)
    found: dict[str, ShardSet] = {}
    for path in paths:
        if portable(path) in [portable(shards.path) for shards in found.values()]:
            raise RecipeError(f"--target {named(path)}: given twice")
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", portable(path).name).lstrip(".") or "target"
        names = [stem, *(f"{stem}-{number}" for number in range(2, len(paths) + 1))]
        # Not resolved: recipes name it as the user did.
        found[next(name for name in names if name not in found)] = ShardSet.open(path)
    return found


def plan(
    document: Mapping[str, Any],
    spec: CrossvalSpec,
    targets: Mapping[str, ShardSet],
    *,
    where: str,
    group: str,
) -> list[PlannedRun]:
    """Every run, validated, by seed, target and fold: the first seed has all its folds before the next.

    ``group`` is that of tracking.

    Raises:
        TemperError: a fold that cannot be made, images that are source images too, or a model that does
            not fit the images.
    """
    base = base_recipe(document, spec, where)
    source = ShardSet.open(base.data.source) if base.data.source is not None else None
    planned = []
    for target, shards in targets.items():
        if source is not None:
            _check_apart(shards, source)
        for fold, site in _folds(shards, spec, base.seed):
            images = fold.apply(shards)
            if base.data.shots_per_class is not None:
                images.few_shot(base.data.shots_per_class, 0)
            for seed in range(base.seed, base.seed + spec.seeds):
                changes = {
                    "data.target": named(shards.path),
                    "data.fold": fold.model_dump(),
                    "seed": seed,
                    # The runs are side by side already: each is evaluated where it is.
                    "evaluation.num_workers": 0,
                }
                recipe = build_recipe(document, changes, where)
                recipe = _named(recipe, target if len(targets) > 1 else None, group)
                planned.append(PlannedRun(target, fold.index, seed, recipe, images, site))
        first = planned[-1].recipe
        check_model(first, open_data(first))
    names = list(targets)
    return sorted(planned, key=lambda run: (run.seed, names.index(run.target), run.fold))


def _folds(shards: ShardSet, spec: CrossvalSpec, seed: int) -> list[tuple[FoldSpec, str | None]]:
    """Each fold of a target, with the site that it tests."""
    sites = sites_of(shards, spec.keep_test) if spec.by_site else [None] * spec.folds
    return [
        (
            FoldSpec(
                index=index, count=len(sites), seed=seed, keep_test=spec.keep_test, by_site=spec.by_site
            ),
            site,
        )
        for index, site in enumerate(sites)
    ]


def _check_apart(target: ShardSet, source: ShardSet) -> None:
    """See that no image of the target, each of which is tested once, is trained on with the source.

    Raises:
        RecipeError: some are.
    """
    trained = {source.digests[row] for row in source.rows("train")}
    num_shared = sum(digest in trained for digest in target.digests)
    if num_shared:
        raise RecipeError(
            f"data.target: {num_shared} images of {named(target.path)} are training images of the source "
            f"{named(source.path)} too, so a fold would be tested on training images; "
            "use another source, or remove them there"
        )


def _named(recipe: Recipe, target: str | None, group: str) -> Recipe:
    """The run's name and tracking group, neither of which counts for the hash."""
    fold = recipe.data.fold
    assert fold is not None
    place = f"{target[:20]}-" if target else ""
    name = f"{recipe.name[:50]}-{place}fold-{fold.index + 1}-seed-{recipe.seed}"
    asked = recipe.tracking.group or os.environ.get("WANDB_RUN_GROUP")
    tracking = recipe.tracking.model_copy(update={"group": asked or group})
    return recipe.model_copy(update={"name": name, "tracking": tracking})
