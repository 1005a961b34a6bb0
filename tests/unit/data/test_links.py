"""Links, folders that cannot be read, and images that are very large."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from temper.data import ImageView, find_images, read_image, write_shards
from temper.data.folders import scan_folders
from temper.errors import DataError, ShardError

USUAL = Image.MAX_IMAGE_PIXELS


def folders(root: Path, *names: str, count: int = 12, start: int = 0) -> Path:
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(start + 100 * place + index).integers(0, 256, (12, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


def test_links_are_followed_on_request_alone(tmp_path: Path) -> None:
    outside = folders(tmp_path / "elsewhere", "x", "y", "z/deep")
    source = folders(tmp_path / "src", "cat", start=1000)
    (source / "dog").symlink_to(outside / "x")
    (source / "cat/more").symlink_to(outside / "y")
    (source / "cat/one.png").symlink_to(outside / "z/deep/0.png")
    (source / "cat/around").symlink_to(source)
    (source / "cat/gone.png").symlink_to(outside / "nothing.png")
    with pytest.raises(
        ShardError, match=r"a link to outside of the source folder \(--follow-links reads it\)"
    ):
        write_shards(source, tmp_path / "out")
    manifest = write_shards(source, tmp_path / "out", follow_links=True, max_bad_frac=0.1)
    assert sum(counts["cat"] for counts in manifest.counts.values()) == 25
    assert sum(counts["dog"] for counts in manifest.counts.values()) == 12
    assert {bad.path: bad.reason for bad in manifest.skipped} == {
        "cat/around": "a link to a folder around it",
        "cat/gone.png": "broken link",
    }
    assert manifest.files == "files seen: 39 = 37 images + 2 skipped + 0 refused"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", "cat", "dog")
    (source / "cat/dogs").symlink_to(source / "dog")
    (source / "dog/cats").symlink_to(source / "cat")
    scan = scan_folders(source, follow_links=True)
    found = [file.relative for file in scan.files if "png" not in file.relative]
    assert found == ["cat/dogs/cats", "dog/cats/dogs"]
    assert len(scan.files) == 2 * (12 + 12 + 1)


def test_links_beside_the_classes_are_named(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", "train/cat", "train/dog")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("x")
    (source / "link").symlink_to(tmp_path / "notes")
    manifest = write_shards(source, tmp_path / "out")
    assert [(bad.path, bad.reason) for bad in manifest.refused] == [("link", "lies in no class folder")]
    assert manifest.files == "files seen: 25 = 24 images + 0 skipped + 1 refused"


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of everybody's, and for the test the rights of somebody who may not read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        own = os.geteuid()
        if own == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(own)


def test_folders_that_cannot_be_read_are_named(nobody: Path) -> None:
    source = folders(nobody / "src", "cat", "dog", "cat/shut", "dog/deep/shut")
    shut = [source / "cat/shut", source / "dog/deep/shut"]
    for folder in shut:
        folder.chmod(0)
    try:
        manifest = write_shards(source, nobody / "out", max_bad_frac=0.1)
        assert {bad.path: bad.reason for bad in manifest.skipped} == {
            "cat/shut": "a folder that cannot be read",
            "dog/deep/shut": "a folder that cannot be read",
        }
        source.chmod(0)
        with pytest.raises(DataError, match=r"src: cannot be read \(Permission denied\)"):
            scan_folders(source)
    finally:
        for folder in (source, *shut):
            folder.chmod(0o777)


def test_the_limit_of_pixels_can_be_raised_and_lowered(tmp_path: Path) -> None:
    source = folders(tmp_path / "src", "cat", "dog")
    with pytest.raises(ShardError, match=r"more pixels than the limit of 191 \(--max-pixels N raises it\)"):
        write_shards(source, tmp_path / "out", max_pixels=191)
    write_shards(source, tmp_path / "out", max_pixels=192)
    assert Image.MAX_IMAGE_PIXELS == USUAL
    with pytest.raises(
        DataError, match="max_pixels: images above 89478485 pixels are stored smaller only; add --size"
    ):
        write_shards(source, tmp_path / "more", max_pixels=10**9)


def test_an_image_above_pillows_limit_is_read_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    source = folders(tmp_path / "src", "cat", "dog")
    Image.new("RGB", (100, 40), "red").save(source / "cat/large.png")
    assert len(write_shards(source, tmp_path / "1", size=16, max_bad_frac=0.1).skipped) == 1
    manifest = write_shards(source, tmp_path / "2", size=16, max_pixels=4000)
    assert (manifest.skipped, manifest.long_side) == ([], (16, 16))


def test_folders_and_links_among_images_to_classify_are_named(nobody: Path) -> None:
    folder = folders(nobody / "new", "shut", "open", count=1)
    (folder / "link").symlink_to(folder / "open")
    (folder / "shut").chmod(0)
    try:
        found = find_images([folder])
        assert [path.relative_to(folder).as_posix() for path in found] == ["link", "open/0.png", "shut"]
        for path, reason in (
            (folder / "link", "a link to a folder"),
            (folder / "shut", "but a folder that cannot be"),
        ):
            with pytest.raises(ValueError, match=reason):
                read_image(path, ImageView(8), None)
    finally:
        (folder / "shut").chmod(0o777)
