"""Tables beside images: their columns reach the shards, and what does not fit the files is refused."""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from temper.data import ShardSet, write_shards
from temper.data.layout import scan_source
from temper.errors import DataError, ShardError
from temper.fitting.look import check_classes


def draw(folder: Path, names: list[str]) -> Path:
    """Images of noise, another one for each name."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def known(shards: Path, name: str) -> dict[str, str | None]:
    """File -> what the shards say of it."""
    opened = ShardSet.open(shards)
    paths = [
        path
        for group in opened.row_groups
        for path in opened.read(group, ["image.path"])["image"].combine_chunks().field("path").to_pylist()
    ]
    return dict(zip(paths, opened.column(name), strict=True))


CATS = [f"cat/{index}.png" for index in range(12)]
DOGS = [f"dog/{index}.png" for index in range(12)]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return draw(tmp_path / "set", CATS + DOGS)


def test_columns_of_metadata_are_columns_of_the_shards(folders: Path, tmp_path: Path) -> None:
    rows = [f"{name},p{index % 8},{'' if index == 3 else 'north'}" for index, name in enumerate(CATS + DOGS)]
    table(folders / "metadata.csv", "file_name,group,site", *rows)
    manifest = write_shards(folders, tmp_path / "shards")
    assert manifest.attributes == ["group", "site"]
    assert (
        manifest.files
        == "files seen: 25 = 24 images + 0 skipped + 1 refused (1 of them notes or files of the system)"
    )
    assert known(tmp_path / "shards", "group") == {
        name: f"p{index % 8}" for index, name in enumerate(CATS + DOGS)
    }
    assert known(tmp_path / "shards", "site")["cat/3.png"] is None
    assert known(tmp_path / "shards", "camera") == dict.fromkeys(CATS + DOGS)
    schema = pq.read_schema(next((tmp_path / "shards").glob("*.parquet")))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["site"] == {"dtype": "string", "_type": "Value"}
    plain = draw(tmp_path / "plain", CATS + DOGS)
    assert write_shards(plain, tmp_path / "without").attributes == []
    check_classes(folders)


def test_a_table_in_each_split_folder_is_relative_to_it(tmp_path: Path) -> None:
    names = [
        f"{split}/{name}/{index}.png"
        for split in ("train", "val", "test")
        for name in "ab"
        for index in range(3)
    ]
    source = draw(tmp_path / "set", names)
    for split in ("train", "val", "test"):
        own = [name.removeprefix(f"{split}/") for name in names if name.startswith(split)]
        table(
            source / split / "metadata.csv", "file_name,group", *(f"{name},{split}-{name[0]}" for name in own)
        )
    write_shards(source, tmp_path / "shards")
    assert known(tmp_path / "shards", "group") == {
        name: f"{name.split('/')[0]}-{name.split('/')[1]}" for name in names
    }
    table(source / "val/metadata.csv", "file_name,camera", *(f"{name},x" for name in ("a/0.png", "b/0.png")))
    with pytest.raises(
        DataError, match=r"val/metadata\.csv: its columns \(camera\) are not those of .*\(group\)"
    ):
        scan_source(source)


@pytest.mark.parametrize("is_beside", [True, False])
def test_labels_of_a_flat_folder(tmp_path: Path, is_beside: bool) -> None:
    source = draw(tmp_path / "flat", [f"{index}.png" for index in range(24)])
    rows = [f"{index}.png,{'healthy' if index % 2 else 'ill'},p{index // 2}" for index in range(24)]
    place = source / "metadata.csv" if is_beside else tmp_path / "labels.csv"
    labels = table(place, "file_name,label,group", *rows)
    manifest = write_shards(source, tmp_path / "shards", labels=None if is_beside else labels)
    assert manifest.classes == ["healthy", "ill"]
    assert manifest.attributes == ["group"]
    assert sum(manifest.counts[split]["ill"] for split in manifest.counts) == 12
    shards = ShardSet.open(tmp_path / "shards")
    expected = {f"{index}.png": (index + 1) % 2 for index in range(24)}
    assert dict(zip(known(tmp_path / "shards", "group"), shards.labels.tolist(), strict=True)) == expected
    if not is_beside:
        table(source / "metadata.csv", "file_name,label,group", *rows)
        with pytest.raises(DataError, match=r"metadata\.csv: would be ignored, because --labels names"):
            scan_source(source, labels)
        assert scan_source(source, source / "metadata.csv").classes == ["healthy", "ill"]


def test_splits_of_labelled_images_come_from_folders_or_a_column(tmp_path: Path) -> None:
    names = [f"{split}/{index}.png" for split in ("train", "val", "test") for index in range(6)]
    source = draw(tmp_path / "set", names)
    labels = table(tmp_path / "a.csv", "file_name,label", *(f"{name},{name[-5]}" for name in names))
    scan = scan_source(source, labels)
    assert {file.relative: file.split for file in scan.files} == {name: name.split("/")[0] for name in names}
    rows = [f"{name},{name[-5]},{'Valid' if name[:3] == 'val' else name.split('/')[0]}" for name in names]
    labels = table(tmp_path / "b.csv", "file_name,label,split", *rows)
    assert scan_source(source, labels).attributes == ()
    labels = table(
        tmp_path / "c.csv", "file_name,label,split", *(row.replace("Valid", "test") for row in rows)
    )
    with pytest.raises(DataError, match=r"c\.csv, line 8: val/0\.png is in 'test', but its folder is 'val'"):
        scan_source(source, labels)
    flat = draw(tmp_path / "flat", [f"{index}.png" for index in range(18)])
    rows = [f"{index}.png,{index % 2},{('train', 'dev', 'holdout')[index // 6]}" for index in range(18)]
    scan = scan_source(flat, table(tmp_path / "d.csv", "file_name,label,split", *rows))
    assert [sum(file.split == split for file in scan.files) for split in ("train", "val", "test")] == [
        6,
        6,
        6,
    ]


def test_names_agree_whatever_their_form_of_unicode(tmp_path: Path) -> None:
    names = [unicodedata.normalize("NFD", f"é{index}.png") for index in range(4)]
    source = draw(tmp_path / "set", names)
    rows = [f"./{unicodedata.normalize('NFC', name)},{index % 2}" for index, name in enumerate(names)]
    assert len(scan_source(source, table(tmp_path / "l.csv", "file_name,label", *rows)).files) == 4


ROWS = [f"{name},p" for name in CATS + DOGS]
WRONG: Mapping[str, tuple[list[str], str]] = {
    "a row without a file": (
        ["file_name,group", *ROWS, "cat/x.png,p", "cat/y.png,p"],
        r"line 26: names cat/x\.png, which is not in .*set \(so do 1 more rows\); remove the row",
    ),
    "a row of a note": (
        ["file_name,group", *ROWS, "metadata.csv,p"],
        r"line 26: .*which is not an image of a class",
    ),
    "files without a row": (
        ["file_name,group", *ROWS[2:]],
        r"set: cat/0\.png and 1 more files without a row in .*metadata\.csv; add rows",
    ),
    "two rows for a file": (
        ["file_name,group", *ROWS, "./cat/3.png,q"],
        r"line 26: './cat/3\.png' has a row already \(.*metadata\.csv, line 5\); keep one",
    ),
    "no names": (["name,group", *ROWS], r"metadata\.csv: expected a column 'file_name', found name, group"),
    "semicolons": (
        ["file_name;group"],
        r"expected a column 'file_name', found file_name;group; separate columns by commas",
    ),
    "nothing": ([""], r"expected a column 'file_name', found nothing"),
    "a name twice": (["file_name,group,group"], r"metadata\.csv: two columns are called 'group'"),
    "no name": (["file_name,"], r"metadata\.csv: a column has no name"),
    "a name that shards need": (
        ["file_name,image"],
        r"the column 'image' cannot be kept under this name; rename",
    ),
    "a short row": (["file_name,group", "cat/0.png"], r"line 2: 1 cells, the header has 2"),
    "a path outside": (
        ["file_name,group", "../cat/0.png,p"],
        r"line 2: 'file_name' is '\.\./cat/0\.png'; expected a path within",
    ),
    "an open quote": (
        ["file_name,group", '"cat/0.png,p'],
        r"line 2: not a CSV file \(unexpected end of data\)",
    ),
    "a label missing": (["file_name,label", "cat/0.png,"], r"line 2: 'label' is empty"),
    "one label": (["file_name,label", *ROWS], r"metadata\.csv: expected at least two labels, found p"),
    "another folder": (
        ["file_name,label", *(f"{name},{name[:3]}" for name in CATS + DOGS[:-1]), f"{DOGS[-1]},cat"],
        r"line 25: dog/11\.png lies in the folder 'dog', but its label is 'cat'",
    ),
    "names of other files": (
        ["file_name,label", r"D:\photos\cat\0.png,x", r"D:\photos\dog\0.png,y"],
        r"no row names a file of .*set; paths begin in .*: write 'cat/0\.png' for 'D:/photos/cat/0\.png'",
    ),
    "a Windows path outside": (["file_name,group", r"..\cat\0.png,p"], r"expected a path within the folder"),
    "one column in two spellings": (["file_name,group,Group"], r"two columns are called 'group'"),
    "an unknown split": (
        ["file_name,split", *(f"{name},fold1" for name in CATS + DOGS)],
        r"line 2: the split is 'fold1'; splits are called train \(training\), val",
    ),
    "no training": (
        ["file_name,split", *(f"{name},test" for name in CATS + DOGS)],
        r"no image is in the split 'train'",
    ),
}


@pytest.mark.parametrize(("lines", "message"), WRONG.values(), ids=WRONG.keys())
def test_tables_that_do_not_fit_are_refused_in_a_line(folders: Path, lines: list[str], message: str) -> None:
    table(folders / "metadata.csv", *lines)
    with pytest.raises(DataError, match=message) as caught:
        scan_source(folders)
    assert "\n" not in str(caught.value)


def test_tables_that_cannot_be_read(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file or directory\)"):
        scan_source(folders, tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("file_name,label\nä.png,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv: not UTF-8; save the table as CSV in UTF-8"):
        scan_source(folders, tmp_path / "latin.csv")


def test_images_in_and_beside_split_folders_are_refused(tmp_path: Path) -> None:
    source = draw(tmp_path / "set", ["train/0.png", "train/1.png", "2.png"])
    labels = table(tmp_path / "l.csv", "file_name,label", "train/0.png,a", "train/1.png,b", "2.png,a")
    with pytest.raises(DataError, match=r"train/0\.png lies in a folder that names a split, 2\.png in none"):
        scan_source(source, labels)


@pytest.mark.parametrize("pattern", [r"^p(\d+)_", r"^(?P<group>p\d+)_(\d+)", r"/(p\d)_\d+\.png$"])
def test_groups_from_names(tmp_path: Path, pattern: str) -> None:
    names = [f"{name}/p{index % 4}_{index}.png" for name in "ab" for index in range(16)]
    source = draw(tmp_path / "set", names)
    manifest = write_shards(source, tmp_path / "shards", group=pattern)
    assert manifest.attributes == ["group"]
    found = known(tmp_path / "shards", "group")
    assert {name: f"p{(value or '').removeprefix('p')}" for name, value in found.items()} == {
        name: name[2:4] for name in names
    }


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"^p\d+", r"expected a part in parentheses"),
        (r"(", r"not a regular expression \(missing"),
        (r"^(x\d+)", r"finds no group in 24 of 24 names, such as cat/0\.png"),
        (r"^(\d?)1?", None),
    ],
)
def test_groups_that_names_do_not_tell(folders: Path, pattern: str, message: str | None) -> None:
    if message is None:
        assert scan_source(folders, None, pattern).attributes == ("group",)
        return
    with pytest.raises(DataError, match=message):
        scan_source(folders, None, pattern)


def test_groups_are_not_given_twice(folders: Path) -> None:
    table(folders / "metadata.csv", "file_name,group", *ROWS)
    with pytest.raises(DataError, match=r"--group: the table has a column 'group' already"):
        scan_source(folders, None, r"^(\d)")


def test_a_column_that_is_gone_from_the_shards(folders: Path, tmp_path: Path) -> None:
    table(folders / "metadata.csv", "file_name,camera", *ROWS)
    write_shards(folders, tmp_path / "shards")
    file = tmp_path / "shards/manifest.json"
    document: dict[str, Any] = json.loads(file.read_text())
    document["attributes"] = ["site"]
    file.write_text(json.dumps(document))
    with pytest.raises(ShardError, match=r"the manifest names the text column 'site', which is not here"):
        ShardSet.open(tmp_path / "shards")


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.parquet"])
def test_tables_of_other_formats_are_not_passed_over(folders: Path, tmp_path: Path, name: str) -> None:
    (folders / "cat" / name).write_bytes(b"{}")
    with pytest.raises(DataError, match=rf"cat/{name}: would be ignored; write this table as metadata\.csv"):
        scan_source(folders)
    with pytest.raises(DataError, match=rf"{name}: would be ignored, because --labels names"):
        scan_source(folders, table(tmp_path / "l.csv", "file_name,group", *ROWS))


def test_capital_letters_and_paths_of_windows_are_understood(folders: Path) -> None:
    rows = [f"{name},p{index},Nord".replace("/", "\\") for index, name in enumerate(CATS + DOGS)]
    table(folders / "Metadata.CSV", "File_Name,Group,Camera", *rows)
    scan = scan_source(folders)
    assert scan.attributes == ("group", "Camera")
    found = {file.relative: file.values for file in scan.files}
    assert found == {name: (f"p{index}", "Nord") for index, name in enumerate(CATS + DOGS)}


def test_a_value_is_the_same_however_its_accents_are_written(folders: Path) -> None:
    forms = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    rows = [f"{name},{forms[index % 2]}" for index, name in enumerate(CATS + DOGS)]
    table(folders / "metadata.csv", "file_name,group", *rows)
    assert {file.values for file in scan_source(folders).files} == {(forms[0],)}


def test_groups_in_names_are_the_same_however_their_accents_are_written(tmp_path: Path) -> None:
    names = [
        unicodedata.normalize(form, f"{folder}/Ärzte_{form}.png")
        for folder in "ab"
        for form in ("NFC", "NFD")
    ]
    files = scan_source(draw(tmp_path / "set", names), None, "^(Ä.*)_").files
    assert [file.values for file in files] == [("Ärzte",)] * 4


def test_a_table_without_labels_is_named_where_folders_are_no_classes(tmp_path: Path) -> None:
    source = draw(tmp_path / "set", ["0.png", "1.png"])
    labels = table(tmp_path / "l.csv", "file_name,dog,cat", "0.png,0,1", "1.png,1,0")
    with pytest.raises(
        DataError, match=r"two classes, found none.*; .*l\.csv has no column 'label', but dog, cat"
    ):
        scan_source(source, labels)


@pytest.mark.parametrize(
    "folder", [("images/train", "images/test"), ("train_images", "test_images")], ids=lambda pair: pair[0]
)
def test_splits_that_a_table_of_labels_would_hide_are_refused(
    tmp_path: Path, folder: tuple[str, str]
) -> None:
    names = [f"{one}/{index}.png" for one in folder for index in range(6)]
    source = draw(tmp_path / "set", names)
    rows = [f"{name},{'xy'[index % 2]}" for index, name in enumerate(names)]
    with pytest.raises(
        DataError, match=r"'test.*', 'train.*' look like splits, but would be ignored; .*'split'"
    ):
        scan_source(source, table(tmp_path / "l.csv", "file_name,label", *rows))
    split = table(tmp_path / "s.csv", "file_name,label,split", *(f"{row},train" for row in rows))
    assert len(scan_source(source, split).files) == 12
    of_folders = table(
        tmp_path / "c.csv", "file_name,label", *(f"{name},{Path(name).parts[-2]}" for name in names)
    )
    assert scan_source(source, of_folders).classes == sorted({Path(name).parts[-2] for name in names})
