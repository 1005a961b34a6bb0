"""Copies of an image: together in every split that is drawn, named in those that come from folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from temper.data import FoldSpec, ShardSet, shared_pictures, write_shards
from temper.data.encode import encode
from temper.data.splits import draw_splits
from temper.errors import DataError, ShardError
from temper.seeds import derive_seed

SPLITS = ("train", "val", "test")


def noise(seed: int, mode: str = "RGB") -> Image.Image:
    shape = (12, 10, 3) if mode == "RGB" else (12, 10)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def fill(folder: Path, first: int, count: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        noise(first + index).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """Splits in folders: four test images are training images too, and one picture is in both classes."""
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        fill(tmp_path / "set" / place, 100 * number, 12)
    for index in range(3):
        shutil.copy(tmp_path / f"set/train/a/{index}.png", tmp_path / f"set/test/a/leak{index}.png")
    noise(3).save(tmp_path / "set/test/a/leak.bmp")
    shutil.copy(tmp_path / "set/train/a/9.png", tmp_path / "set/train/b/dup.png")
    return tmp_path / "set"


def places(shards: ShardSet) -> dict[bytes, set[str]]:
    """Which splits each picture is in."""
    found: dict[bytes, set[str]] = {}
    for split in SPLITS:
        for row in shards.rows(split):  # type: ignore[arg-type]
            group = next(one for one in shards.row_groups if one.start <= row < one.start + one.num_rows)
            image = shards.read(group)["image"][int(row) - group.start].as_py()
            (path := shards.path.parent / "probe").write_bytes(image["bytes"])
            found.setdefault(encode(path, None).pixels, set()).add(split)
    return found


def test_drawn_splits_and_folds_keep_equal_bytes_and_equal_pixels_together(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        folder = fill(tmp_path / "set" / name, 100 * number, 30)
        for index in range(30):
            if index % 2:
                shutil.copy(folder / f"{index}.png", folder / f"{index} (1).png")
            else:
                noise(100 * number + index).save(folder / f"{index}.bmp")
    noise(0).save(tmp_path / "set/b/mistaken.tiff")
    manifest = write_shards(tmp_path / "set", tmp_path / "shards")
    shards = ShardSet.open(tmp_path / "shards")
    assert manifest.copies is not None
    assert sum(len(one.rows) for one in manifest.copies) == 121
    assert [one.classes for one in manifest.copies if len(one.classes) > 1] == [["a", "b"]]
    assert not manifest.across_splits
    for one in (shards, *(FoldSpec(index=index, count=4).apply(shards) for index in range(4))):
        assert [len(splits) for splits in places(one).values()] == [1] * 60
        assert all(count > 0 for split in SPLITS for count in one.class_counts(split))  # type: ignore[arg-type]
    assert manifest.counts["test"] == {"a": 12, "b": 11}, (
        "the pair of a that is also in b takes one of b along"
    )


@pytest.mark.parametrize("other", ["L", "RGB"])
def test_pixels_count_whatever_the_format_and_the_mode(tmp_path: Path, other: str) -> None:
    noise(0, "L").save(tmp_path / "grey.png")
    noise(0, "L").convert(other).save(tmp_path / "same.tiff")
    noise(1, "L").save(tmp_path / "other.png")
    noise(0, "L").resize((6, 20)).save(tmp_path / "shape.png")
    grey, same, *others = (
        encode(tmp_path / name, None).pixels for name in ("grey.png", "same.tiff", "other.png", "shape.png")
    )
    assert grey == same
    assert grey not in others
    flat = [Image.new("L", size) for size in ((4, 9), (9, 4))]
    for index, image in enumerate(flat):
        image.save(tmp_path / f"{index}.png")
    assert len({encode(tmp_path / f"{index}.png", None).pixels for index in range(2)}) == 2


def test_without_copies_rows_are_drawn_class_by_class_in_the_order_of_the_seed() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 200)
    drawn = draw_splits(labels, ["train"] * 200, "abc", np.arange(200), val_frac=0.15, test_frac=0.2, seed=7)
    left = list(range(200))
    for split, frac in (("test", 0.2), ("val", 0.15)):
        generator = np.random.default_rng(derive_seed(7, "split", split))
        expected: set[int] = set()
        for label in range(3):
            members = [row for row in left if labels[row] == label]
            expected |= set(generator.permutation(members)[: max(1, round(len(members) * frac))].tolist())
        assert drawn[split] == sorted(expected)  # type: ignore[index]
        left = sorted(set(left) - expected)
    assert drawn["train"] == left


def test_a_class_of_few_pictures_with_many_copies(tmp_path: Path) -> None:
    for name, pictures in (("a", 9), ("b", 3)):
        fill(tmp_path / "set" / name, ord(name) * 100, pictures)
    for index in range(3):
        for copy in range(4):
            shutil.copy(tmp_path / f"set/b/{index}.png", tmp_path / f"set/b/{index}-{copy}.png")
    manifest = write_shards(tmp_path / "set", tmp_path / "shards")
    assert [manifest.counts[split]["b"] for split in SPLITS] == [5, 5, 5]  # type: ignore[index]
    for path in (tmp_path / "set/b").glob("2*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"class 'b' has 5 image\(s\), but too few that are not copies"):
        write_shards(tmp_path / "set", tmp_path / "two")


def test_copies_across_folders_are_named_in_the_manifest(fixed: Path, tmp_path: Path) -> None:
    manifest = write_shards(fixed, tmp_path / "shards")
    assert sorted(sorted(one.paths) for one in manifest.across_splits) == [
        ["test/a/leak.bmp", "train/a/3.png"],
        *([f"test/a/leak{index}.png", f"train/a/{index}.png"] for index in range(3)),
    ]
    assert [sorted(one.paths) for one in manifest.copies or () if len(one.classes) > 1] == [
        ["train/a/9.png", "train/b/dup.png"]
    ]
    shards = ShardSet.open(tmp_path / "shards")
    assert len(shared_pictures(shards, shards.rows("test"), ["train", "val"]) or ()) == 4


def change(folder: Path, edit: Any) -> Path:
    file = folder / "manifest.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))
    return folder


def test_older_shards_are_compared_by_their_bytes(fixed: Path, tmp_path: Path) -> None:
    write_shards(fixed, tmp_path / "shards")
    folder = change(
        tmp_path / "shards",
        lambda document: [document.pop(name) for name in ("copies", "refused", "num_notes")],
    )
    shards = ShardSet.open(folder)
    found = shared_pictures(shards, shards.rows("test"), ["train", "val"])
    assert found is not None
    # The BMP was written as PNG by the same encoder, so even its bytes are equal.
    assert len(found) == 4


def test_a_manifest_whose_copies_lie_outside_is_refused(fixed: Path, tmp_path: Path) -> None:
    write_shards(fixed, tmp_path / "shards")
    folder = change(tmp_path / "shards", lambda document: document["copies"][0]["rows"].append(10**6))
    with pytest.raises(ShardError, match=r"'copies' needs a path for each row, and rows within 0\.\.52"):
        ShardSet.open(folder)
