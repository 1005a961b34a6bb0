"""Groups are never cut by splits and folds, and each site can be left out once."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from temper.data import SPLITS, FoldSpec, ShardSet, sites_of, write_shards
from temper.data.groups import joined, numbers_of
from temper.errors import DataError, RecipeError
from temper.records import hash_of_recipe


def picture(folder: Path, name: str, seed: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write(folder: Path, rows: list[tuple[str, str, str | None]]) -> Path:
    """Class folders with a table: (file, group, site)."""
    for seed, (name, _, _) in enumerate(rows):
        picture(folder, name, seed)
    lines = [f"{name},{group},{site or ''}" for name, group, site in rows]
    (folder / "metadata.csv").write_text("\n".join(["file_name,group,site", *lines]) + "\n")
    return folder


def patients(count: int, sites: int = 3) -> list[tuple[str, str, str | None]]:
    """Patients with two to five images each, some of them in both classes."""
    generator = np.random.default_rng(0)
    return [
        (f"{name}/p{patient}-{index}.png", f"p{patient}", f"site {patient % sites}")
        for patient in range(count)
        for index in range(generator.integers(2, 6))
        for name in [("a", "b")[(patient // 3 + (index if patient % 5 == 0 else 0)) % 2]]
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("patients")
    write_shards(write(folder / "images", patients(40)), folder / "shards")
    return ShardSet.open(folder / "shards")


def assert_whole(shards: ShardSet, groups: list[str | None]) -> None:
    """No group lies in two splits."""
    where: dict[str | None, set[str]] = {}
    for split in SPLITS:
        for row in shards.rows(split):
            where.setdefault(groups[row], set()).add(split)
    assert {name: found for name, found in where.items() if len(found) > 1} == {}


@pytest.mark.parametrize("seed", range(4))
def test_drawn_splits_never_cut_a_group(tmp_path: Path, seed: int) -> None:
    source = write(tmp_path / "images", patients(30))
    manifest = write_shards(source, tmp_path / "shards", seed=seed)
    shards = ShardSet.open(tmp_path / "shards")
    assert manifest.straddling == []
    assert_whole(shards, shards.column("group"))
    assert all(count > 0 for counts in manifest.counts.values() for count in counts.values())


@pytest.mark.parametrize("keep_test", [False, True])
def test_folds_never_cut_a_group_and_keep_the_classes(shards: ShardSet, keep_test: bool) -> None:
    folds = [FoldSpec(index=index, count=4, keep_test=keep_test).apply(shards) for index in range(4)]
    for fold in folds:
        assert_whole(fold, shards.column("group"))
    tested = np.concatenate([fold.rows("test") for fold in folds])
    assert len(np.unique(tested)) == len(tested)
    counts = np.array([fold.class_counts("test") for fold in folds])
    assert np.all(counts.max(0) - counts.min(0) <= 6), "as evenly as patients of up to five images allow"


def test_a_copy_links_two_groups(tmp_path: Path) -> None:
    rows = patients(20)
    write(tmp_path / "images", rows)
    first, last = rows[0], rows[-1]
    picture(tmp_path / "images", last[0], 0)  # the very picture of the first file
    write_shards(tmp_path / "images", tmp_path / "shards")
    shards = ShardSet.open(tmp_path / "shards")
    groups = ["both" if group in (first[1], last[1]) else group for group in shards.column("group")]
    assert_whole(shards, groups)


def test_numbers_are_joined_by_chains() -> None:
    first = numbers_of(["x", "y", "z", None, "y", "w", None])
    assert first.tolist() == [0, 1, 2, -1, 1, 3, -1]
    other = numbers_of(["q", None, "r", None, "r", None, None])
    assert joined(first, other).tolist() == [0, 1, 1, 2, 1, 3, 4]
    assert joined(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_a_class_of_one_group_cannot_be_shared_out(tmp_path: Path) -> None:
    rows = [*patients(12), *((f"c/{index}.png", "only", "site 0") for index in range(6))]
    source = write(tmp_path / "images", rows)
    with pytest.raises(
        DataError, match=r"class 'c' has 6 image\(s\), but too few that are not .* of one group"
    ):
        write_shards(source, tmp_path / "shards")


def test_large_groups_make_uneven_splits_and_this_is_said(tmp_path: Path, caplog: Any) -> None:
    rows: list[tuple[str, str, str | None]] = [
        (f"{name}/{group}-{index}.png", f"{name}{group}", None)
        for name in "ab"
        for group in range(4)
        for index in range(9)
    ]
    source = write(tmp_path / "images", rows)
    with caplog.at_level(logging.WARNING):
        write_shards(source, tmp_path / "shards")
    assert "the split 'test' has 9 instead of 7 images of the class 'a'" in caplog.text
    assert "groups and copies stay whole" in caplog.text
    caplog.clear()
    FoldSpec(index=0, count=3).apply(ShardSet.open(tmp_path / "shards"))
    assert "fold 1 of 3 has 18 instead of 12 images of the class 'a'" in caplog.text


def test_each_site_is_tested_once_by_what_is_trained_on_the_others(shards: ShardSet) -> None:
    assert sites_of(shards) == ["site 0", "site 1", "site 2"]
    site_of = shards.column("site")
    folds = [FoldSpec(index=index, count=3, by_site=True).apply(shards) for index in range(3)]
    for index, fold in enumerate(folds):
        assert {site_of[row] for row in fold.rows("test")} == {f"site {index}"}
        rest = [*fold.rows("train"), *fold.rows("val")]
        assert f"site {index}" not in {site_of[row] for row in rest}
        assert len(fold.rows("test")) + len(rest) == len(shards.labels)
        assert all(fold.class_counts("val"))
        assert_whole(fold, shards.column("group"))
    assert folds[1].manifest.name == "images, site 2 of 3"
    assert len({fold.fingerprint for fold in [*folds, FoldSpec(index=0, count=3).apply(shards)]}) == 4


def test_images_of_a_group_at_two_sites_do_not_train_for_either(tmp_path: Path, caplog: Any) -> None:
    rows = patients(30)
    rows[-1] = (rows[-1][0], rows[0][1], rows[-1][2])
    write_shards(write(tmp_path / "images", rows), tmp_path / "shards")
    shards = ShardSet.open(tmp_path / "shards")
    assert rows[-1][2] == "site 2"
    with caplog.at_level(logging.WARNING):
        fold = FoldSpec(index=0, count=3, by_site=True).apply(shards)
    assert "site 1 of 3: 1 images of other sites belong to a group or picture of this one" in caplog.text
    assert_whole(fold, shards.column("group"))
    assert sum(len(fold.rows(split)) for split in SPLITS) == len(rows) - 1


def test_sites_that_cannot_be_left_out(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"data\.fold\.count: got 4, but .* has 3 sites \(site 0, site 1, site 2\); allowed: 3",
    ):
        FoldSpec(index=0, count=4, by_site=True).apply(shards)
    rows = patients(12)
    rows[0] = (*rows[0][:2], None)
    write_shards(write(tmp_path / "some", rows), tmp_path / "shards/some")
    with pytest.raises(RecipeError, match=r"by_site: 1 of \d+ images of .* have no site"):
        sites_of(ShardSet.open(tmp_path / "shards/some"))
    write_shards(write(tmp_path / "one", patients(12, sites=1)), tmp_path / "shards/one")
    with pytest.raises(
        RecipeError, match=r"by_site: .* has 1 sites, expected at least two; make its shards with"
    ):
        sites_of(ShardSet.open(tmp_path / "shards/one"))


def test_a_site_without_a_class_is_tested_and_named(tmp_path: Path, caplog: Any) -> None:
    rows = [(name, group, "far" if name.startswith("a/p1") else site) for name, group, site in patients(30)]
    write_shards(write(tmp_path / "images", rows), tmp_path / "shards")
    with caplog.at_level(logging.WARNING):
        fold = FoldSpec(index=0, count=4, by_site=True).apply(ShardSet.open(tmp_path / "shards"))
    assert "site 1 of 4: has no image of b" in caplog.text
    assert fold.class_counts("test")[1] == 0


def test_folds_of_earlier_recipes_keep_their_hash_and_fingerprint(shards: ShardSet) -> None:
    fold = {"index": 0, "count": 3, "seed": 0, "keep_test": False}
    old = hash_of_recipe({"data": {"fold": fold}})
    assert hash_of_recipe({"data": {"fold": {**fold, "by_site": False}}}) == old
    assert hash_of_recipe({"data": {"fold": {**fold, "by_site": True}}}) != old
