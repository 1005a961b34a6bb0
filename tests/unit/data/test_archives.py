"""Archives of class folders, and WebDataset's tars."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from temper.data import Manifest, ShardSet, write_shards
from temper.errors import DataError, ShardError

GZIP = "photos.tar.gz"


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def folders(root: Path, *names: str, count: int = 12, start: int = 0) -> Path:
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index}.png").write_bytes(picture(start + 100 * place + index))
    return root


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def webdataset(path: Path, labels: list[str], start: int = 0, **beside: str) -> Path:
    """``key.png``, ``key.cls`` and what else there is ``beside`` for every label."""
    with tarfile.open(path, "w") as tar:
        for index, label in enumerate(labels):
            add(tar, f"s{index:04d}.png", picture(start + index))
            add(tar, f"s{index:04d}.cls", f"{label}\n".encode())
            for suffix, text in beside.items():
                add(tar, f"s{index:04d}.{suffix}", text.encode())
    return path


def rows_of(path: Path) -> list[tuple[str, str]]:
    """Class and path of every row."""
    shards = ShardSet.open(path)
    tables = [shards.read(group).to_pylist() for group in shards.row_groups]
    return sorted((shards.classes[row["label"]], row["image"]["path"]) for table in tables for row in table)


@pytest.mark.parametrize(
    "name", ["photos.zip", "photos.tar", GZIP, "photos.TGZ", "photos.tar.xz", "photos.tar.bz2"]
)
@pytest.mark.parametrize("within", ["", "photos/", "a b/photos/"])
def test_an_archive_gives_the_shards_of_its_folders(tmp_path: Path, name: str, within: str) -> None:
    source = folders(tmp_path / "src", "train/cat", "train/dog", "val/cat", "val/dog")
    (source / "notes.txt").write_text("x")
    expected = write_shards(source, tmp_path / "1", name="photos")
    archive = tmp_path / name
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if name.endswith("zip"):
        with zipfile.ZipFile(archive, "w") as zipped:
            for file in files:
                zipped.write(file, within + file.relative_to(source).as_posix())
            zipped.writestr("__MACOSX/._x", "x")
    else:
        kind = name.lower().rpartition(".")[2].replace("tgz", "gz").replace("tar", "")
        with tarfile.open(archive, f"w:{kind}") as tar:
            for file in files:
                tar.add(file, within + file.relative_to(source).as_posix())
    found = write_shards(archive, tmp_path / "2")
    assert (found.name, found.fingerprint) == ("photos", expected.fingerprint)
    assert rows_of(tmp_path / "2") == rows_of(tmp_path / "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["1", "2", "src", name])


def test_what_an_archive_holds_beside_files_is_refused_and_named(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", "cat", "dog")
    (source / "cat/link.png").symlink_to("/etc/passwd")
    os.mkfifo(source / "dog/pipe.png")
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(source, ".")
        add(tar, "cat/0.png", picture(999))
        add(tar, "cat/1.png/2.png", picture(998))
    with pytest.raises(ShardError, match=r"0 skipped so far, 4 refused: more than 1\.0% of 28 images cannot"):
        write_shards(archive, tmp_path / "out")
    manifest = write_shards(archive, tmp_path / "out", max_bad_frac=4 / 28)
    assert {bad.path: bad.reason for bad in manifest.refused} == {
        "./cat/link.png": "a link or a device in an archive",
        "./dog/pipe.png": "a link or a device in an archive",
        "cat/0.png": "the archive already has this name",
        "cat/1.png/2.png": "the archive already has this name",
    }
    assert manifest.files == "files seen: 28 = 24 images + 0 skipped + 4 refused"


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "cat/../../x.png"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_writes_nothing_outside(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / f"deep/down/a.{kind}"
    archive.parent.mkdir(parents=True)
    if kind == "tar":
        with tarfile.open(archive, "w") as tar:
            add(tar, name, picture(0))
    else:
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr(name, picture(0))
    with pytest.raises(
        DataError, match=r"a\.(tar|zip): the entry '.*' points outside the archive; nothing was read"
    ):
        write_shards(archive, tmp_path / "deep/down/out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [archive.name]


def test_an_archive_that_unpacks_to_more_than_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in ("cat", "dog"):
            zipped.writestr(f"{name}/0.png", bytes(10**6))
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="more than half of what is free on this disk; make room, or unpack"):
        write_shards(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_no_archive_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"a\.rar: a '\.rar' file; expected class folders .*\.zip.*KEY\.cls"):
        write_shards(tmp_path / "a.rar", tmp_path / "out")
    for name in ("a.zip", "a.tar", GZIP):
        (tmp_path / name).write_bytes(b"no archive" * 100)
        with pytest.raises(DataError, match=r"not a readable (zip|tar) archive"):
            write_shards(tmp_path / name, tmp_path / "out")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(DataError, match=r"pipe\.zip: a '\.zip' file; expected"):
        write_shards(tmp_path / "pipe.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", GZIP])
def test_damaged_archives_end_in_one_line(tmp_path: Path, name: str) -> None:
    """Bytes changed and cut off, 30 times: shards, or one of our errors; nothing is left behind."""
    source = folders(tmp_path / "src", "cat", "dog", count=3)
    base = shutil.make_archive(
        str(tmp_path / "whole"), {"a.zip": "zip", "a.tar": "tar", GZIP: "gztar"}[name], source
    )
    whole = Path(base).read_bytes()
    Path(base).unlink()
    generator = np.random.default_rng(0)
    (tmp_path / "work").mkdir()
    outcomes = set()
    for number in range(30):
        content = bytearray(whole)
        place = int(generator.integers(len(content)))
        content[place] ^= int(generator.integers(1, 256))
        (tmp_path / "work" / name).write_bytes(bytes(content[:place] if number % 3 == 0 else content))
        try:
            write_shards(tmp_path / "work" / name, tmp_path / "work/out", max_bad_frac=1)
            shutil.rmtree(tmp_path / "work/out")
            outcomes.add("shards")
        except DataError as problem:
            outcomes.add("unwritten" if "cannot be written" in str(problem) else "refused")
        assert [path.name for path in (tmp_path / "work").iterdir()] == [name]
    assert outcomes in ({"shards", "refused"}, {"refused"})


def test_an_archive_with_a_password_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("cat/0.png", picture(0))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for start in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[start] |= 1  # the flag of an encrypted entry
    (tmp_path / "a.zip").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.zip: not a readable zip archive \(.*password"):
        write_shards(tmp_path / "a.zip", tmp_path / "out")


def test_folders_in_an_archive_are_named_by_the_archive(tmp_path: Path) -> None:
    folders(tmp_path / "src/photos", "cat")
    archive = Path(shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path / "src"))
    with pytest.raises(
        DataError, match=r"one\.zip: expected a folder for each of at least two classes"
    ) as caught:
        write_shards(archive, tmp_path / "out")
    assert ".tmp" not in str(caught.value)


@pytest.mark.parametrize("column", ["label", "site"])
@pytest.mark.parametrize("kind", ["zip", "folder", "folder above"])
def test_paths_of_a_table_begin_in_the_folder_of_the_images(tmp_path: Path, column: str, kind: str) -> None:
    """Also in an archive of one folder that holds all. A table of other paths is told how to write them."""
    folders(tmp_path / "src/photos", "cat", "dog")
    source = tmp_path / ("src" if kind == "folder above" and column == "label" else "src/photos")
    if kind == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path / "src"))
    names = [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(12)]

    def table(prefix: str) -> Path:
        rows = [f"{prefix}{name},{name[:3]}" for name in names]
        (tmp_path / "t.csv").write_text("\n".join([f"file_name,{column}", *rows]))
        return tmp_path / "t.csv"

    right, wrong = ("photos/", "") if source.name == "src" else ("", "photos/")
    with pytest.raises(DataError) as caught:
        write_shards(source, tmp_path / "out", labels=table(wrong))
    assert str(caught.value) == (
        f"{tmp_path / 't.csv'}: no row names a file of {source}; paths begin in the folder of the images: "
        f"write '{right}cat/0.png' for '{wrong}cat/0.png', and the others likewise"
    )
    manifest = write_shards(source, tmp_path / "out", labels=table(right))
    assert (manifest.classes, manifest.skipped) == (["cat", "dog"], [])
    assert {path for _, path in rows_of(tmp_path / "out")} == {f"{right}{name}" for name in names}


def check(manifest: Manifest, classes: list[str], **counts: int) -> None:
    assert manifest.classes == classes
    assert {split: sum(own.values()) for split, own in manifest.counts.items()} == counts


def test_a_webdataset_tar_is_read_by_its_labels(tmp_path: Path) -> None:
    tar = webdataset(tmp_path / "train-000000.tar", [str(index % 2) for index in range(40)])
    manifest = write_shards(tar, tmp_path / "out")
    check(manifest, ["0", "1"], train=28, val=4, test=8)
    rows = rows_of(tmp_path / "out")
    assert rows[0] == ("0", "train/0/train-000000.tar/s0000.png")
    assert {path[-8:-4]: label for label, path in rows} == {f"{n:04d}": str(n % 2) for n in range(40)}


@pytest.mark.parametrize(
    "names", [("train-0.tar", "val-0.tar"), ("x_train_0.tar", "x.valid.0.tar"), ("train/0.tar", "dev/0.tar")]
)
def test_splits_come_from_the_names_of_tars(tmp_path: Path, names: tuple[str, str]) -> None:
    for place, name in enumerate(names):
        (tmp_path / "wds" / name).parent.mkdir(parents=True, exist_ok=True)
        webdataset(tmp_path / "wds" / name, ["cat", "dog"] * 8, start=100 * place)
    (tmp_path / "wds/info.json").write_text("{}")
    manifest = write_shards(tmp_path / "wds", tmp_path / "out")
    check(manifest, ["cat", "dog"], train=12, val=16, test=4)


def test_classes_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "wds").mkdir()
    for place, split in enumerate(("all", "train", "test")):
        webdataset(tmp_path / f"wds/{split}.tar", [str(n % 11) for n in range(55)], start=100 * place)
        if split == "all":
            assert write_shards(tmp_path / "wds", tmp_path / "1").classes == [f"{n:02d}" for n in range(11)]
            (tmp_path / "wds/all.tar").unlink()
    manifest = write_shards(tmp_path / "wds", tmp_path / "out")
    assert manifest.classes == [f"{n:02d}" for n in range(11)]
    assert sum(sum(own.values()) for own in manifest.counts.values()) == 110


def test_what_a_webdataset_has_beside_images_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tar = webdataset(tmp_path / "a.tar", ["0", "1"] * 10, json="{}", txt="a bird")
    with tarfile.open(tar, "a") as opened:
        add(opened, "lost.png", picture(77))
        add(opened, "._s0000.png", b"x")
    with pytest.raises(ShardError, match=r"0 skipped so far, 1 refused: .*\n  a\.tar/lost\.png: no KEY\.cls"):
        write_shards(tar, tmp_path / "out")
    manifest = write_shards(tar, tmp_path / "out", max_bad_frac=0.05)
    assert "a.tar: not used: 20 .json, 20 .txt files; only KEY.cls says the class" in caplog.text
    assert [(bad.path, bad.reason) for bad in manifest.refused] == [
        ("a.tar/lost.png", "no KEY.cls beside it")
    ]


def test_tars_without_labels_and_labels_that_are_none(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(4):
            add(tar, f"{index}.jpg", picture(index))
            add(tar, f"{index}.json", b'{"label": 1}')
    with pytest.raises(DataError, match=r"expected KEY\.cls beside each KEY\.png, found \.jpg, \.json"):
        write_shards(tmp_path / "a.tar", tmp_path / "out")
    for label in ("../up", ".hidden", "", "x" * 300, "a\0b", "[" * 1000):
        tar_of = webdataset(tmp_path / "b.tar", ["cat", label])
        with pytest.raises(DataError, match=r"'s0001\.cls': the class '.*' cannot be the name of a folder"):
            write_shards(tar_of, tmp_path / "out")


@pytest.mark.parametrize("label", ['{"label": 0}', "{'label': 'cat'}", "[0, 1]", '"cat"', '{"label": 0'])
def test_labels_that_hold_json_are_refused_in_a_line(tmp_path: Path, label: str) -> None:
    tar = webdataset(tmp_path / "a.tar", ["cat", label] * 8)
    with pytest.raises(DataError) as caught:
        write_shards(tar, tmp_path / "out")
    assert str(caught.value) == (
        f"{tar}: 's0001.cls': holds {label!a}; expected the class's name or number as plain text, such as "
        "cat or 0, without JSON around it"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", [["0", "1"], ["true", "null"], ["[unknown]", "-1.5"], ["it's", "e{1}"]])
def test_labels_that_are_words_or_numbers_are_kept(tmp_path: Path, labels: list[str]) -> None:
    assert set(write_shards(webdataset(tmp_path / "a.tar", labels * 8), tmp_path / "out").classes) == set(
        labels
    )


def test_samples_of_one_name_and_files_apart_from_their_labels_are_named(tmp_path: Path) -> None:
    tar = webdataset(tmp_path / "a.tar", ["0", "1"] * 10)
    with tarfile.open(tar, "a") as opened:
        add(opened, "s0000.png", picture(99))
        add(opened, "s0000.cls", b"0")
    with pytest.raises(ShardError, match=r"1 refused: .*\n  a\.tar/s0000\.png: its name is in the archive"):
        write_shards(tar, tmp_path / "out")
    manifest = write_shards(tar, tmp_path / "out", max_bad_frac=0.05)
    assert [(bad.path, bad.reason) for bad in manifest.refused] == [
        ("a.tar/s0000.png", "its name is in the archive already")
    ]
    assert manifest.files == "files seen: 21 = 20 images + 0 skipped + 1 refused"
    with tarfile.open(tmp_path / "b.tar", "w") as opened:
        for index in range(4):
            add(opened, f"{index}.png", picture(index))
        for index in range(4):
            add(opened, f"{index}.cls", b"0")
    with pytest.raises(
        DataError, match=r"b\.tar: no image has a label: KEY\.png and KEY\.cls must follow one"
    ):
        write_shards(tmp_path / "b.tar", tmp_path / "out2")


def test_tars_of_one_name_in_several_folders_do_not_replace_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, name in enumerate(("part1", "part2")):
        (tmp_path / "wds" / name).mkdir(parents=True)
        webdataset(tmp_path / "wds" / name / "0.tar", ["cat", "dog"] * 8, start=100 * place)
    manifest = write_shards(tmp_path / "wds", tmp_path / "out")
    assert manifest.files == "files seen: 32 = 32 images + 0 skipped + 0 refused"
    assert len({path for _, path in rows_of(tmp_path / "out")}) == 32
    assert "topmost folders" not in caplog.text, "tars are no folders of theirs"
