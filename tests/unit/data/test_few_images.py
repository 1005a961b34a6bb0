"""Few and unbalanced images: few-shot subsets, and epochs in which every class counts alike."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.batches import ResidentBatches
from temper.cluster.datasets import build_train_data, decode_splits
from temper.data import Images, ImageView, ShardSet, load_images, stratified_subset, warn_of_absent
from temper.data.plan import balanced_order
from temper.errors import RecipeError
from temper.run.open_data import open_data


def test_few_shots_of_each_class_and_everything_else_as_it_was(digits: dict[str, Path]) -> None:
    whole = ShardSet.open(digits["target"])
    few = whole.few_shot(3, seed=0)
    images = load_images(few, "train", ImageView(8))
    assert Counter(images.labels.tolist()) == dict.fromkeys(range(5), 3)
    assert few.class_counts("train") == [3] * 5
    assert set(few.rows("train")) <= set(whole.rows("train"))
    assert np.array_equal(few.rows("test"), whole.rows("test"))
    assert few.fingerprint == whole.fingerprint
    assert np.array_equal(few.rows("train"), whole.few_shot(3, seed=0).rows("train"))
    assert not np.array_equal(few.rows("train"), whole.few_shot(3, seed=1).rows("train"))


def test_more_shots_than_images(tiny_recipe: Any) -> None:
    with pytest.raises(RecipeError, match=r"shots_per_class: got 5000, but class '\d' of .* has \d+"):
        open_data(tiny_recipe(data__shots_per_class=5000))


def test_a_few_shot_recipe_reads_its_shots_only(tiny_recipe: Any) -> None:
    recipe = tiny_recipe(data__shots_per_class=10)
    data = open_data(recipe)
    feed = build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))
    assert sum(len(batch.labels) for batch in feed.target.epoch(0)) == 50
    assert feed.class_counts == [10] * 5
    assert feed.source is not None
    assert feed.source.num_batches > 1


@pytest.mark.parametrize("counts", [[100, 10], [7, 7, 7], [50, 1, 3], [5, 200]])
def test_a_balanced_epoch(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = balanced_order(labels, np.random.default_rng(0))
    assert len(order) == len(labels)
    drawn = np.bincount(labels[order])
    assert drawn.max() - drawn.min() <= 1
    for label, count in enumerate(counts):
        times = np.bincount(order[labels[order] == label], minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1, "no image comes again before all of its class"
        assert (times.min() >= 1) == (drawn[label] >= count)


def test_balanced_batches_repeat_with_the_seed_and_change_with_the_epoch() -> None:
    labels = np.repeat([0, 1], [40, 8])
    images = Images(np.zeros((48, 3, 8, 8), np.uint8), labels, np.arange(48))

    def rows(epoch: int, rank: int = 0, world_size: int = 1) -> list[int]:
        batches = ResidentBatches(
            images, batch_size=8, seed=1, rank=rank, world_size=world_size, is_balanced=True
        )
        return [int(row) for batch in batches.epoch(epoch) for row in batch.rows]

    assert rows(0) == rows(0) != rows(1)
    assert sorted(rows(0, 0, 2) + rows(0, 1, 2)) == sorted(rows(0))


@pytest.mark.parametrize("counts", [[24, 1, 24], [1, 500, 1, 1], [2, 3], [40, 1, 1, 1, 1, 1, 1, 1]])
@pytest.mark.parametrize("seed", range(4))
def test_a_subset_keeps_every_class_while_there_is_room(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    for size in range(len(counts), len(labels)):
        chosen = stratified_subset(labels, size, seed)
        drawn = np.bincount(labels[chosen], minlength=len(counts))
        assert len(set(chosen.tolist())) == size
        assert drawn.min() >= 1
        assert np.array_equal(chosen, np.sort(chosen))
        assert np.abs(drawn - np.array(counts) * size / len(labels)).max() < len(counts)


def test_a_subset_that_has_every_class_is_the_one_of_earlier_versions() -> None:
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    assert stratified_subset(labels, 6, 3).tolist() == [14, 22, 29, 31, 34, 58]


def test_too_few_images_for_every_class_are_told(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.repeat([0, 1, 2], [24, 1, 24])
    few = labels[stratified_subset(labels, 2, 0)]
    warn_of_absent(few, ["healthy", "hernia", "pneumonia"], "validation.max_images")
    assert "validation.max_images: 2 images hold none of 1 of the 3 classes (hernia)" in caplog.text
    caplog.clear()
    warn_of_absent(labels, ["healthy", "hernia", "pneumonia"], "validation.max_images")
    assert not caplog.text
