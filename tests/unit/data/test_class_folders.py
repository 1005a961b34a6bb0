"""Reading class folders: what is found, what is left out, what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from temper.data import write_shards
from temper.data.folders import scan_folders
from temper.errors import DataError


def add(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (4, 4)).save(folder / name)


def found(source: Path) -> list[str]:
    return [file.relative for file in scan_folders(source).files]


def test_one_folder_without_splits_is_all_training(tmp_path: Path) -> None:
    add(tmp_path / "dog", "1.png")
    add(tmp_path / "cat", "1.png", "2.png")
    classes, files, *_ = scan_folders(tmp_path)
    assert classes == ["cat", "dog"]
    assert [(file.relative, file.label, file.split) for file in files] == [
        ("cat/1.png", 0, "train"),
        ("cat/2.png", 0, "train"),
        ("dog/1.png", 1, "train"),
    ]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val", "dev", "Development"])
def test_split_folders_have_the_names_that_people_use(tmp_path: Path, val: str) -> None:
    for split in ("train", val, "test"):
        add(tmp_path / split / "a", "1.png")
        add(tmp_path / split / "b", "1.png")
    assert [file.split for file in scan_folders(tmp_path).files] == [
        *["train"] * 2,
        *["val"] * 2,
        *["test"] * 2,
    ]


@pytest.mark.parametrize("test", ["test", "testing", "holdout", "hold-out", "Hold_Out"])
def test_test_folders_have_the_names_that_people_use(tmp_path: Path, test: str) -> None:
    for split in ("train", test):
        add(tmp_path / split / "a", "1.png")
        add(tmp_path / split / "b", "1.png")
    assert [file.split for file in scan_folders(tmp_path).files] == [*["train"] * 2, *["test"] * 2]


@pytest.mark.parametrize(
    "names", ["bus car train", "control test", "invalid valid", "dev prod", "Train test zoo"]
)
def test_classes_may_have_the_names_of_splits(tmp_path: Path, names: str) -> None:
    for name in names.split():
        add(tmp_path / name, "1.png")
    classes, files, *_ = scan_folders(tmp_path)
    assert classes == names.split()
    assert [(file.label, file.split) for file in files] == [(label, "train") for label in range(len(classes))]


def test_a_class_with_the_name_of_a_split_within_a_split(tmp_path: Path) -> None:
    for path in ("train/car", "train/train", "test/car", "test/train"):
        add(tmp_path / path, "1.png")
    assert scan_folders(tmp_path).classes == ["car", "train"]


def test_files_outside_of_the_classes_are_named_and_notes_counted(tmp_path: Path) -> None:
    for path in ("train/a", "train/b", "test/a", "test/b", "shards"):
        add(tmp_path / path, "1.png")
    add(tmp_path, "stray.jpg")
    add(tmp_path / "train", "stray.png")
    (tmp_path / "shards" / "manifest.json").write_text("{}")
    (tmp_path / "shards" / "train-00000-of-00001.parquet").write_bytes(b"")
    (tmp_path / "docs").mkdir()
    for note in ("docs/about.md", "train/a/notes.txt", ".DS_Store", "test/b/Thumbs.db"):
        (tmp_path / note).write_text("x")
    scan = scan_folders(tmp_path)
    assert len(scan.files) == 4
    assert scan.strays == [
        "shards/1.png",
        "shards/train-00000-of-00001.parquet",
        "stray.jpg",
        "train/stray.png",
    ]
    assert len(scan.notes) == 5
    assert len(scan.files) + len(scan.strays) + len(scan.notes) == sum(
        p.is_file() for p in tmp_path.rglob("*")
    )


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


def class_train_with_folders(source: Path) -> None:
    for path in ("bus/city", "car/suv", "train/diesel", "train/steam"):
        add(source / path, "1.png", "2.png")


def unknown_split(source: Path) -> None:
    for path in ("train/a", "train/b", "crossval/a", "crossval/b", "test/a", "test/b"):
        add(source / path, "1.png")


def class_beside_splits(source: Path) -> None:
    for path in ("train/a", "train/b", "test/a", "test/b", "c"):
        add(source / path, "1.png")


def images_without_classes(source: Path) -> None:
    for path in ("train/a", "train/b", "test"):
        add(source / path, "1.png")


def splits_within_classes(source: Path) -> None:
    for path in ("a/train", "a/test", "b/train", "b/test"):
        add(source / path, "1.png")


def splits_by_other_names(source: Path) -> None:
    for path in ("training_set/a", "training_set/b", "testset/a", "testset/b", "pred"):
        add(source / path, "1.png")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            splits_by_other_names,
            r"'testset', 'training_set' look like splits, but would be classes; .*rename these folders",
        ),
        (
            class_train_with_folders,
            r"'bus', 'car' with 4 file\(s\) would be ignored, because 'train' .*rename",
        ),
        (unknown_split, r"'crossval' with 2 file.*splits are called train .*dev.*holdout"),
        (class_beside_splits, r"'c' with 1 file.* would be ignored, because 'test', 'train' beside"),
        (images_without_classes, r"'test' has images, but no class folders; lay splits out as test/<class>"),
        (
            splits_within_classes,
            r"'test', 'train' lie within the classes and would be ignored; lay .*<class>",
        ),
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


def test_a_folder_without_classes_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("1.JPG", "2.jpg", "a.zip", "labels.csv", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"found none and files: 2 \.jpg, 1 \.(zip|csv), 1 \.(zip|csv); lay the"
    ):
        scan_folders(tmp_path)


@pytest.mark.parametrize("name", [".", "src", "./src/.", "../{}/src"])
def test_a_relative_folder_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for label in ("a", "b"):
        (tmp_path / "src" / label).mkdir(parents=True)
        (tmp_path / "src" / label / "0.png").write_bytes(b"x")
    (tmp_path / "src/stray.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "src" if name == "." else tmp_path)
    scan = scan_folders(Path(name.format(tmp_path.name)))
    assert [file.relative for file in scan.files] == ["a/0.png", "b/0.png"]
    assert (scan.strays, len(scan.notes)) == (["stray.png"], 0)


def test_accents_are_one_name_however_a_disk_spells_them(tmp_path: Path) -> None:
    """macOS writes the accent of é as a character of its own: splits fit, and fingerprints agree."""
    composed, apart = "\u00e9", "e\u0301"

    def images(root: Path, names: dict[str, str]) -> Path:
        for split, name in names.items():
            for place, folder in enumerate((name, "tea")):
                (root / split / folder).mkdir(parents=True)
                for index in range(3):
                    pixels = np.full((8, 8), 10 * index + 100 * place + len(split), np.uint8)
                    Image.fromarray(pixels).save(root / split / folder / f"{name}{index}.png")
        return root

    one = images(tmp_path / "linux/set", {"train": composed, "val": composed, "test": composed})
    other = images(tmp_path / "mac/set", {"train": apart, "val": composed, "test": apart})
    first, second = (write_shards(root, root.parent / "shards") for root in (one, other))
    assert first.classes == second.classes == ["tea", composed]
    assert first.fingerprint == second.fingerprint
    assert second.refused == []
    (other / "train" / composed).mkdir()
    with pytest.raises(DataError, match="look alike"):
        write_shards(other, tmp_path / "twice")


def test_classes_whose_names_speak_of_splits_are_classes(tmp_path: Path) -> None:
    for name, folders in {"train station": ("day", "night"), "test tube": ("glass", "day")}.items():
        for folder in folders:
            add(tmp_path / name / folder, "1.png")
    assert scan_folders(tmp_path).classes == ["test tube", "train station"]


def test_what_systems_leave_behind_is_no_image_and_no_class(tmp_path: Path) -> None:
    for name in ("a", "b"):
        add(tmp_path / name, "1.png")
        for left in ("ehthumbs.db", "1.png~", "Icon\r"):
            (tmp_path / name / left).write_bytes(b"")
        add(tmp_path / name / "@eaDir/1.png", "SYNOFILE_THUMB_M.jpg")
    for name in ("$RECYCLE.BIN", "System Volume Information", "lost+found"):
        (tmp_path / name).mkdir()
    scan = scan_folders(tmp_path)
    assert [file.relative for file in scan.files] == ["a/1.png", "b/1.png"]
    assert (scan.strays, len(scan.notes)) == ([], 8)


SITES = ("a/ill", "a/well", "b/ill", "b/well")


@pytest.mark.parametrize(
    ("folders", "is_said"),
    [
        (SITES, True),
        ([f"train/{name}" for name in SITES] + [f"test/{name}" for name in SITES], True),
        ([f"{name}/deeper" for name in SITES], True),
        (("a/ill", "a/well", "b/ill", "b/fine"), False),
        (("a/ill", "b/ill"), False),
        ((*SITES, "a"), False),
        (("a", "b"), False),
    ],
)
@pytest.mark.parametrize("kind", ["folders", "zip"])
def test_classes_of_the_same_sub_folders_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folders: list[str], is_said: bool, kind: str
) -> None:
    for number, name in enumerate(folders):
        (tmp_path / "src" / name).mkdir(parents=True, exist_ok=True)
        for index in range(4):
            pixels = np.random.default_rng([number, index]).integers(0, 256, (6, 6)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "src" / name / f"{index}.png")
    source = tmp_path / "src"
    if kind == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "set"), "zip", source))
    assert write_shards(source, tmp_path / "out").classes == ["a", "b"], "it is no refusal"
    expected = (
        f"{source}: the classes are the topmost folders ('a', 'b'), and each is made of the same folders "
        "('ill', 'well'); if these are the classes, give a table with a column 'label': metadata.csv beside "
        "them, or --labels CSV"
    )
    assert [record.message for record in caplog.records if "topmost" in record.message] == (
        [expected] if is_said else []
    )


def test_labels_in_a_table_leave_no_doubt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{folder}/{index}.png" for folder in SITES for index in range(4)]
    for number, name in enumerate(names):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 6)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "src" / name)
    for place in (0, 1):  # the topmost folders, or those below
        rows = [f"{name},{name.split('/')[place]}" for name in names]
        (tmp_path / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
        manifest = write_shards(tmp_path / "src", tmp_path / f"{place}", labels=tmp_path / "labels.csv")
        assert manifest.classes == [["a", "b"], ["ill", "well"]][place]
    assert "topmost" not in caplog.text
