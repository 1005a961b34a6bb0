"""What is read, but may be meant otherwise: each is said, and a set without it gives no word."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from temper.data import Manifest, write_shards
from temper.errors import DataError


def draw(folder: Path, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "PNG")


def files(*classes: str, count: int = 8) -> list[str]:
    return [f"{name}/{index}.png" for name in classes for index in range(count)]


def table(path: Path, columns: str, values: Callable[[int], str], count: int = 24) -> Path:
    """A table of ``count`` images ``N.png``; ``values`` are the cells of a row beside the name."""
    rows = [f"{index}.png,{values(index)}" for index in range(count)]
    path.write_text("\n".join([f"file_name,{columns}", *rows]) + "\n")
    return path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    draw(tmp_path / "flat", [f"{index}.png" for index in range(24)])
    return tmp_path / "flat"


def shards(source: Path, labels: Path | None = None, group: str | None = None) -> Manifest:
    return write_shards(source, source.parent / "shards", labels=labels, group=group)


def test_a_set_without_doubts_gives_no_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "set", files("cat", "dog", "none", "2 x"))
    (tmp_path / "set/notes.csv").write_text("when,who\nmonday,us\n")
    shards(tmp_path / "set")
    assert caplog.text == ""


def test_hidden_images_are_named_and_what_programs_keep_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/a/._1.png", "._2.png", "a/Thumbs.db"]
    draw(tmp_path / "set", [*files("a", "b"), *kept])
    manifest = shards(tmp_path / "set")
    assert manifest.num_notes == 4
    assert caplog.text == ""
    draw(tmp_path / "other", [*files("a", "b"), *files(".dog")])
    shards_of_other = write_shards(tmp_path / "other", tmp_path / "others")
    assert shards_of_other.classes == ["a", "b"]
    assert "8 hidden files with the suffix of an image are left out, such as '.dog/0.png'" in caplog.text


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("Cat", "cat"), "'Cat', 'cat'"),
        (("01", "1"), "'01', '1'"),
        (("t-shirt", "t_shirt", "top"), "'t-shirt', 't_shirt'"),
    ],
)
def test_classes_that_differ_in_little_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, classes: tuple[str, ...], said: str
) -> None:
    draw(tmp_path / "set", files(*classes))
    assert shards(tmp_path / "set").classes == list(classes)
    assert f"the classes {said} differ only in capitals, spaces or zeros, and are kept apart" in caplog.text


def test_numbers_in_the_order_of_text_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "set", files("2", "10"))
    shards(tmp_path / "set")
    assert "the classes are numbers in the order of text (10, 2, ...)" in caplog.text


@pytest.mark.parametrize("word", ["nan", "NA", "None"])
def test_words_for_nothing_are_told(flat: Path, caplog: pytest.LogCaptureFixture, word: str) -> None:
    shards(flat, table(flat.parent / "l.csv", "label", lambda index: ("a", "b", word)[index % 3]))
    assert f"the label of 8 images is '{word}', which looks like a missing value" in caplog.text


def test_groups_named_nothing_and_groups_of_one_are_told(
    flat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group: Callable[[int], str] = lambda index: f"{'ab'[index % 2]},{'nan' if index < 4 else index // 4}"  # noqa: E731
    shards(flat, table(flat.parent / "l.csv", "label,group", group))
    assert "the group of 4 images is 'nan'" in caplog.text
    assert "every group has one image" not in caplog.text
    alone = table(flat.parent / "m.csv", "label,group", lambda index: f"{'ab'[index % 2]},p{index}")
    write_shards(flat, flat.parent / "alone", labels=alone)
    assert "every group has one image, so that groups keep nothing together" in caplog.text


def test_groups_that_differ_in_capitals_are_told(flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    group: Callable[[int], str] = lambda index: f"{'ab'[index // 2 % 2]},{'pP'[index % 2]}{index // 4}"  # noqa: E731
    shards(flat, table(flat.parent / "l.csv", "label,group", group))
    assert "the groups 'P0', 'p0' (and 5 more such pairs) differ only in capitals" in caplog.text


def test_masks_among_the_images_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    masks = [f"{name}/{index}_mask.png" for name in "ab" for index in range(3)]
    draw(tmp_path / "set", [*files("a", "b"), *masks, "a/x_mask.png"])
    shards(tmp_path / "set")
    assert "6 files are named like masks of others, such as 'a/0_mask' of 'a/0'" in caplog.text


def test_variants_of_one_picture_are_told_with_what_groups_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{name}/{index // 3}_jpg.rf.{index:032x}.jpg" for name in "ab" for index in range(24)]
    draw(tmp_path / "set", names)
    shards(tmp_path / "set")
    assert "48 files are named like variants of 8 pictures, such as '0_jpg'; --group" in caplog.text
    pattern = caplog.text.partition("--group '")[2].partition("'")[0]
    caplog.clear()
    grouped = write_shards(tmp_path / "set", tmp_path / "grouped", group=pattern)
    assert "variants" not in caplog.text
    assert grouped.straddling == []


def test_a_table_that_is_not_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "set", files("a", "b"))
    labels = tmp_path / "set/labels.csv"
    labels.write_text("id;class\n3.png;b\n")
    shards(tmp_path / "set")
    assert "'labels.csv' names images, but is not read; --labels reads it" in caplog.text
    caplog.clear()
    rows = [f"{name},{name[0]}" for name in files("a", "b")]
    labels.write_text("\n".join(["file_name,label", *rows]) + "\n")
    write_shards(tmp_path / "set", tmp_path / "read", labels=labels)
    assert caplog.text == ""


@pytest.mark.parametrize("column", ["subset", "phase"])
def test_a_column_of_splits_under_another_name_is_refused(flat: Path, column: str) -> None:
    """Splits would be drawn, and a published test set be trained on."""
    labels = table(
        flat.parent / "l.csv",
        f"label,{column}",
        lambda index: f"{'ab'[index % 2]},{('train', 'Train', 'TEST')[index % 3]}",
    )
    with pytest.raises(
        DataError, match=rf"l\.csv: the column '{column}' names splits \(test, train\).*call it 'split'"
    ):
        shards(flat, labels)


def test_an_attribute_with_some_words_of_splits_is_one(flat: Path) -> None:
    labels = table(
        flat.parent / "l.csv",
        "label,vehicle",
        lambda index: f"{'ab'[index % 2]},{('train', 'test', 'bus')[index % 3]}",
    )
    assert shards(flat, labels).attributes == ["vehicle"]


# --- what a file tells beside what it shows -----------------------------------------------------

rng = np.random.default_rng


def colour(index: int, side: int = 8) -> Image.Image:
    return Image.fromarray(rng(index).integers(0, 256, (8, side, 3), dtype=np.uint8))


def clear(index: int) -> Image.Image:
    layer = colour(index)
    layer.putalpha(colour(index).convert("L"))
    return layer


def opaque(index: int) -> Image.Image:
    layer = colour(index)
    layer.putalpha(255)
    return layer


def deep(index: int) -> Image.Image:
    return Image.fromarray(rng(index).integers(0, 4096, (8, 8)).astype(np.uint16))


def grey(index: int) -> Image.Image:
    return Image.merge("RGB", [colour(index).convert("L")] * 3)


def save_all(root: Path, makers: dict[str, Callable[[int], Image.Image]], suffix: str = ".png") -> Path:
    for place, (name, make) in enumerate(makers.items()):
        (root / name).mkdir(parents=True)
        for index in range(10):
            make(100 * place + index).save(root / name / f"{index}{suffix}")
    return root


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda index: colour(index, 16), "the size of a file tells its class: 100% of 'a' are of 8 x 8"),
        (grey, "the colour of a file tells its class: 100% of 'a' are in colour, 0% of the others"),
        (clear, "the transparency of a file tells its class: 100% of 'a' are opaque, 0% of the others"),
        (deep, "the depth of a file tells its class: 100% of 'a' are of 8 bits, 0% of the others"),
    ],
    ids=["size", "colour", "transparency", "depth"],
)
def test_what_tells_the_class_beside_the_picture_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: Callable[[int], Image.Image], said: str
) -> None:
    shards(save_all(tmp_path / "set", {"a": colour, "b": other}))
    assert said in caplog.text
    assert "a model may learn this instead of what is shown" in caplog.text


def test_the_format_that_tells_the_class_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_all(tmp_path / "set", {"a": colour}, ".jpg")
    shards(save_all(tmp_path / "set", {"b": colour, "c": colour}))
    assert "the format of a file tells its class: 100% of 'a' are JPEG, 0% of the others" in caplog.text


def test_what_both_classes_have_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sizes of their own, an opaque layer of transparency, and a few of another colour."""
    size: Callable[[int], Image.Image] = lambda index: colour(index, 8 + index % 100)  # noqa: E731
    some: Callable[[int], Image.Image] = lambda index: (grey if index % 4 == 0 else opaque)(index)  # noqa: E731
    for name, make in {"sizes": size, "some": some}.items():
        save_all(tmp_path / name, {"a": make, "b": make})
        write_shards(tmp_path / name, tmp_path / f"{name}-shards")
    save_all(tmp_path / "layers", {"a": colour, "b": opaque})
    write_shards(tmp_path / "layers", tmp_path / "layers-shards")
    assert caplog.text == ""


def test_deep_images_beside_others_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mixed: Callable[[int], Image.Image] = lambda index: (grey, deep)[index % 2](index)  # noqa: E731
    shards(save_all(tmp_path / "set", {"a": mixed, "b": mixed}))
    assert "10 images of 8 bits and 10 images of more than 8 bits" in caplog.text
    assert "tells its class" not in caplog.text.replace("the colour of a file tells its class", "")


def test_a_set_that_is_black_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dark: Callable[[int], Image.Image] = lambda index: Image.fromarray(  # noqa: E731
        rng(index).integers(0, 4, (8, 8), dtype=np.uint8)
    )
    shards(save_all(tmp_path / "set", {"a": dark, "b": dark}))
    assert "no image is brighter than 3 of 255, so that all are nearly black" in caplog.text


def test_negative_numbers_without_their_sign_are_told(tmp_path: Path) -> None:
    """Computed tomography, -1000 to 2000, cast to uint16: air is white."""

    def wrapped(index: int) -> Image.Image:
        return Image.fromarray(rng(index).integers(-1000, 2000, (8, 8)).astype(np.int16).view(np.uint16))

    def marked(index: int) -> Image.Image:
        pixels = np.array(deep(index))
        pixels[0] = 65535
        return Image.fromarray(pixels)

    manifest = shards(save_all(tmp_path / "set", {"a": wrapped, "b": marked}))
    assert {image.path.partition("/")[0] for image in manifest.partly} == {"a"}
    assert "as negative numbers become that lose their sign" in manifest.partly[0].reason


def test_warnings_are_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards(save_all(tmp_path / "set", {"Cat": colour, "cat": grey}))
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
