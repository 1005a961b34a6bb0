"""Reading class folders: what is found, what is left out, what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from temper.data.folders import scan_folders
from temper.errors import DataError


def add(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (4, 4)).save(folder / name)


def found(source: Path) -> list[str]:
    return [file.relative for file in scan_folders(source)[1]]


def test_one_folder_without_splits_is_all_training(tmp_path: Path) -> None:
    add(tmp_path / "dog", "1.png")
    add(tmp_path / "cat", "1.png", "2.png")
    classes, files = scan_folders(tmp_path)
    assert classes == ["cat", "dog"]
    assert [(file.relative, file.label, file.split) for file in files] == [
        ("cat/1.png", 0, "train"),
        ("cat/2.png", 0, "train"),
        ("dog/1.png", 1, "train"),
    ]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_have_the_names_that_people_use(tmp_path: Path, val: str) -> None:
    for split in ("train", val, "test"):
        add(tmp_path / split / "a", "1.png")
        add(tmp_path / split / "b", "1.png")
    assert [file.split for file in scan_folders(tmp_path)[1]] == [*["train"] * 2, *["val"] * 2, *["test"] * 2]


def test_images_in_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    add(tmp_path / "a" / "patient1", "1.png")
    add(tmp_path / "b", "1.png")
    assert found(tmp_path) == ["a/patient1/1.png", "b/1.png"]


def test_junk_is_left_out_and_other_files_are_not(tmp_path: Path) -> None:
    add(tmp_path / "a", "1.png")
    add(tmp_path / "b", "1.png")
    add(tmp_path / "a" / ".ipynb_checkpoints", "1-checkpoint.png")
    add(tmp_path / "a" / "__MACOSX", "1.png")
    add(tmp_path / "__MACOSX", "1.png")
    add(tmp_path / ".cache", "1.png")
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "labels.csv", "film.mp4"):
        (tmp_path / "a" / name).write_bytes(b"x")
    assert found(tmp_path) == ["a/1.png", "a/film.mp4", "b/1.png"]


def test_a_broken_link_does_not_go_unseen(tmp_path: Path) -> None:
    add(tmp_path / "a", "1.png")
    add(tmp_path / "b", "1.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "a/gone.png" in found(tmp_path)


def nothing(_: Path) -> None:
    pass


def empty_class(source: Path) -> None:
    add(source / "a", "1.png")
    (source / "b").mkdir()


def class_of_notes(source: Path) -> None:
    add(source / "a", "1.png")
    (source / "b").mkdir()
    (source / "b" / "notes.txt").write_text("soon")


def one_class(source: Path) -> None:
    add(source / "a", "1.png")


def only_test(source: Path) -> None:
    add(source / "test" / "a", "1.png")
    add(source / "test" / "b", "1.png")


def other_classes(source: Path) -> None:
    for path in ("train/a", "train/b", "test/a", "test/c"):
        add(source / path, "1.png")


def two_validations(source: Path) -> None:
    for path in ("train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b"):
        add(source / path, "1.png")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (nothing, r"expected a folder for each of at least two classes, found none; .*train/<class>"),
        (one_class, r"at least two classes, found a"),
        (empty_class, r"the class 'b' has no images; add some or remove the folder"),
        (class_of_notes, r"the class 'b' has no images"),
        (only_test, r"found test, but no 'train' folder"),
        (other_classes, r"only in .*train: b; only in .*test: c"),
        (two_validations, r"'val' and 'valid' are both the split 'val'; keep one"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_folders_that_cannot_be_meant_are_refused(
    tmp_path: Path, build: Callable[[Path], None], message: str
) -> None:
    build(tmp_path)
    with pytest.raises(DataError, match=message):
        scan_folders(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        scan_folders(tmp_path / "nowhere")
