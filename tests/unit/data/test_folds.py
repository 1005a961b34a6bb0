"""Folds: every image is tested once, classes keep their share, and copies are never apart."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from temper.data import FoldSpec, ImageView, ShardSet, load_images, write_shards
from temper.data.folds import deal, draw_share
from temper.errors import RecipeError
from temper.recipe import load_recipe, pretrain_recipe
from temper.run.open_data import open_data
from temper.spec import content_hash

SPLITS = ("train", "val", "test")
ROOT = Path(__file__).parents[3]


def write_noise(folder: Path, classes: dict[str, int]) -> Path:
    generator = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.png")
    return folder


def all_folds(shards: ShardSet, count: int, **changes: Any) -> list[ShardSet]:
    return [FoldSpec(index=index, count=count, **changes).apply(shards) for index in range(count)]


def pixels_of(shards: ShardSet, split: Any) -> set[str]:
    images = load_images(shards, split, ImageView(8)).images
    return {hashlib.sha256(image.tobytes()).hexdigest() for image in images}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Noise in three unequal classes, 83 images."""
    folder = tmp_path_factory.mktemp("noise")
    write_shards(write_noise(folder / "images", {"a": 41, "b": 29, "c": 13}), folder / "shards")
    return ShardSet.open(folder / "shards")


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The same with seven copies of one image, five pairs, and an image that is in two classes."""
    folder = tmp_path_factory.mktemp("copies")
    images = write_noise(folder / "images", {"a": 41, "b": 29, "c": 13})
    for copy in range(7):
        shutil.copy(images / "a/000.png", images / f"a/copy-{copy}.png")
    for index in range(1, 6):
        shutil.copy(images / f"b/{index:03d}.png", images / f"b/copy-{index}.png")
    shutil.copy(images / "a/010.png", images / "c/mistaken.png")
    write_shards(images, folder / "shards")
    return ShardSet.open(folder / "shards")


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_folds_are_disjoint_cover_everything_and_keep_the_classes(shards: ShardSet, count: int) -> None:
    folds = all_folds(shards, count)
    tested = np.concatenate([fold.rows("test") for fold in folds])
    assert sorted(tested) == list(range(83)), "each image is tested exactly once"
    labels = np.concatenate([load_images(shards, split, ImageView(8)).labels for split in SPLITS])
    rows = np.concatenate([shards.rows(split) for split in SPLITS])
    label_of = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    for fold in folds:
        split_rows = [set(fold.rows(split).tolist()) for split in SPLITS]
        assert sum(map(len, split_rows)) == len(set().union(*split_rows)) == 83
        for split in SPLITS:
            counts = np.bincount([label_of[row] for row in fold.rows(split).tolist()], minlength=3)
            assert fold.class_counts(split) == counts.tolist()
    counts = np.array([fold.class_counts("test") for fold in folds])
    assert np.all(counts.max(0) - counts.min(0) <= 1), counts
    assert counts.sum(1).max() - counts.sum(1).min() <= 1


def test_validation_is_the_manifest_s_share_of_the_rest(shards: ShardSet) -> None:
    frac = len(shards.rows("val")) / (len(shards.rows("val")) + len(shards.rows("train")))
    for fold in all_folds(shards, 4):
        val, train = np.array(fold.class_counts("val")), np.array(fold.class_counts("train"))
        assert val.tolist() == [max(1, round(total * frac)) for total in (val + train).tolist()]


def test_the_same_seed_gives_the_same_folds_and_another_one_others(shards: ShardSet) -> None:
    again = ShardSet.open(shards.path)
    for mine, same, other in zip(
        all_folds(shards, 3), all_folds(again, 3), all_folds(shards, 3, seed=1), strict=True
    ):
        assert mine.manifest == same.manifest
        assert not np.array_equal(mine.rows("test"), other.rows("test"))


def test_copies_never_lie_in_two_splits_of_a_fold(with_copies: ShardSet) -> None:
    for fold in all_folds(with_copies, 4):
        seen = [pixels_of(fold, split) for split in SPLITS]
        assert len(set().union(*seen)) == sum(map(len, seen)) == 83, "pixels, not only file bytes"
    official = [pixels_of(with_copies, split) for split in SPLITS]
    assert len(set().union(*official)) == sum(map(len, official)), "nor in the splits that were drawn"
    counts = np.array([fold.class_counts("test") for fold in all_folds(with_copies, 4)])
    assert np.all(counts.max(0) - counts.min(0) <= 1), "single images make up for the groups"
    sizes = counts.sum(1)
    assert sizes.sum() == 83 + 7 + 5 + 1


def test_keep_test_leaves_the_official_test_images_out(shards: ShardSet) -> None:
    folds = all_folds(shards, 4, keep_test=True)
    used = np.concatenate([fold.rows(split) for fold in folds for split in SPLITS])
    assert set(used) == set(shards.rows("train")) | set(shards.rows("val"))
    tested = np.concatenate([fold.rows("test") for fold in folds])
    assert sorted(tested) == sorted(set(used))


def test_every_fold_has_a_fingerprint_of_its_own(shards: ShardSet, with_copies: ShardSet) -> None:
    made = [
        shards.fingerprint,
        *(fold.fingerprint for fold in all_folds(shards, 5)),
        *(fold.fingerprint for fold in all_folds(shards, 4)),
        *(fold.fingerprint for fold in all_folds(shards, 5, seed=1)),
        *(fold.fingerprint for fold in all_folds(shards, 5, keep_test=True)),
        *(fold.fingerprint for fold in all_folds(with_copies, 5)),
    ]
    assert len(set(made)) == len(made)
    assert all_folds(shards, 5)[2].manifest.name == "images, fold 3 of 5"


@pytest.mark.parametrize("index", [0, 13, 19])
def test_a_class_too_small_for_its_folds_is_named(shards: ShardSet, index: int) -> None:
    with pytest.raises(RecipeError, match=r"class 'c' of .* has 13 image\(s\), too few .* for 20 folds"):
        FoldSpec(index=index, count=20).apply(shards)


@pytest.mark.parametrize("seed", range(5))
def test_dealing_and_drawing_with_random_groups(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, 300)
    groups = np.where(generator.random(300) < 0.2, generator.integers(0, 20, 300), 100 + np.arange(300))
    folds = deal(labels, groups, 5, seed)
    drawn = np.zeros(300, bool)
    drawn[draw_share(labels, groups, 0.25, seed)] = True
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
        assert len(np.unique(drawn[groups == group])) == 1
    counts = np.array([np.bincount(labels[folds == fold], minlength=4) for fold in range(5)])
    assert np.all(counts.max(0) - counts.min(0) <= 1)
    wanted = np.round(0.25 * np.bincount(labels)).astype(int)
    assert np.bincount(labels[drawn], minlength=4).tolist() == wanted.tolist()


# --- in a recipe ------------------------------------------------------------------------------


def test_a_recipe_without_a_fold_keeps_the_hash_that_it_always_had() -> None:
    recipe = load_recipe(ROOT / "jobs/recipes/tiny.yaml")
    document = recipe.model_dump(mode="json", exclude={"name", "tracking", "checkpoint"})
    assert document["data"].pop("fold", "gone") is None
    assert document["data"].pop("tests", "gone") == {}
    assert document["validation"].pop("is_asynchronous", "gone") is False
    assert document["workers"].pop("gpus_per_worker", "gone") == 1.0
    assert document["evaluation"].pop("rejection", "gone") is None
    assert document["evaluation"].pop("allow_leakage", "gone") is False
    assert document["model"].pop("head", "gone") is None
    assert recipe.hash == content_hash(document)
    hashes = {
        load_recipe(ROOT / "jobs/recipes/tiny.yaml", {"data.fold": {"index": index, "count": 5}}).hash
        for index in range(5)
    }
    assert len({*hashes, recipe.hash}) == 6


def test_a_fold_is_an_override_that_changes_the_target_alone(tiny_recipe: Any) -> None:
    whole = open_data(tiny_recipe())
    fold = open_data(tiny_recipe(data__fold={"index": 1, "count": 3}, data__shots_per_class=4))
    assert fold.fingerprints["source"] == whole.fingerprints["source"]
    assert fold.fingerprints["target"] != whole.fingerprints["target"]
    assert fold.shards["target"].class_counts("train") == [4] * 5
    assert abs(3 * len(fold.shards["target"].rows("test")) - 896) <= 3


def test_pretraining_is_the_same_for_all_folds(tiny_recipe: Any) -> None:
    recipes = [
        tiny_recipe(pretrain={"epochs": 1}, data__fold=fold) for fold in (None, {"index": 1, "count": 3})
    ]
    first, second = (pretrain_recipe(recipe) for recipe in recipes)
    assert first.hash == second.hash
    assert second.data.fold is None


def test_an_index_outside_the_folds(tiny_recipe: Any) -> None:
    with pytest.raises(RecipeError, match=r"'data.fold': fold index 3 of 3 folds; allowed: 0..2"):
        tiny_recipe(data__fold={"index": 3, "count": 3})
