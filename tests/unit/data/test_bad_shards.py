"""Shards and manifests that lie, are cut short, or change under a run: an error, nothing read amiss."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from temper.data import ImageView, RowGroup, ShardSet, integrity, load_images
from temper.errors import ShardError, TemperError
from temper.records import sha256_of

Document = dict[str, Any]


@pytest.fixture
def folder(digits: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of real shards, to be spoilt."""
    return Path(shutil.copytree(digits["target"], tmp_path / "shards"))


@pytest.fixture
def as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The set is taken for one that is too large to be hashed when it is opened."""
    monkeypatch.setattr(integrity, "WHOLE_BYTES", 0)


def change(folder: Path, spoil: Callable[[Document], object]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))


def shard_of(folder: Path) -> Path:
    return next(iter(sorted(folder.glob("*.parquet"))))


def rewrite(folder: Path, spoil: Callable[[pa.Table], pa.Table]) -> None:
    """Replace a shard and let the manifest's digest follow, as someone would who wants to deceive."""
    path = shard_of(folder)
    pq.write_table(spoil(pq.read_table(path)), path, row_group_size=256)
    change(
        folder,
        lambda document: document["shards"][0].update(bytes=path.stat().st_size, sha256=sha256_of(path)),
    )


def put_image(content: bytes | None) -> Callable[[pa.Table], pa.Table]:
    """The first row has other bytes as its image."""

    def spoil(table: pa.Table) -> pa.Table:
        images = table["image"].to_pylist()
        images[0]["bytes"] = content
        return table.set_column(0, "image", pa.array(images, table["image"].type))

    return spoil


def put_labels(values: list[int | None]) -> Callable[[pa.Table], pa.Table]:
    """The first rows have other labels."""

    def spoil(table: pa.Table) -> pa.Table:
        labels = table["label"].to_pylist()
        return table.set_column(1, "label", pa.array(values + labels[len(values) :], pa.int64()))

    return spoil


def encoded(kind: str, image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def swap_first(document: Document) -> None:
    counts = document["counts"]["train"]
    first, second = list(counts)[:2]
    counts[first], counts[second] = counts[first] + 1, counts[second] - 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (swap_first, r"'counts\.train' says \d+ images of the class '\d', the shards hold \d+"),
        (lambda d: d["counts"].pop("val"), r"'splits' and 'counts' need the split 'val'"),
        (lambda d: d["splits"].pop("test"), r"'splits' and 'counts' need the split 'test'"),
        (lambda d: d["counts"]["val"].update(cat=1), r"'counts\.val' names other classes than 'classes'"),
        (lambda d: d.update(classes=d["classes"][::-1]), r"'counts\.train' names other classes"),
        (lambda d: d.update(classes=[d["classes"][0]] * 5), r"'classes' has a name twice"),
        (lambda d: d["splits"]["val"].append(d["splits"]["train"][0]), r"names a row twice, or one outside"),
        (lambda d: d["splits"]["val"].append(10**6), r"names a row twice, or one outside 0\.\.\d+"),
        (
            lambda d: d["splits"]["val"].append(-1),
            r"'splits\.val\.\d+': Input should be greater than or equal",
        ),
        (lambda d: d["splits"]["val"].append(10**30), r"'splits\.val\.\d+'"),
        (lambda d: d["splits"]["train"].pop(), r"'counts\.train' says \d+ images of the class '\d', the"),
        (
            lambda d: d.update(fingerprint="0" * 16),
            r"'fingerprint' is 0{16}, but that of the shards is \w{16}",
        ),
        (lambda d: d.update(long_side=[8, 4]), r"'long_side' is \[8, 4\]"),
        (lambda d: d["shards"].append(d["shards"][0]), r"'shards' has a name twice"),
        (lambda d: d["shards"][0].update(num_rows=-5), r"'shards\.0\.num_rows'"),
        (lambda d: d["shards"][0].update(sha256="no"), r"'shards\.0\.sha256'"),
        (lambda d: d["shards"][0].update(sha256="0" * 64), r"parquet: changed since it was written"),
        (
            lambda d: d["shards"][0].update(file="../a.parquet"),
            r"'shards\.0\.file': expected the name of a file",
        ),
        (lambda d: d["shards"][0].update(file="/etc/passwd"), r"'shards\.0\.file': expected the name"),
        (lambda d: d["shards"][0].update(file="a\0b"), r"'shards\.0\.file': expected the name"),
        (lambda d: d["shards"][0].update(file=".."), r"'shards\.0\.file': expected the name"),
        (lambda d: d["shards"][0].update(file="x" * 256), r"'shards\.0\.file': expected the name"),
        (lambda d: d.update(schema_version=2), r"not a manifest \('schema_version'"),
        (lambda d: d.update(extra=1), r"not a manifest \('extra'"),
        (lambda d: d.update(bytes=float("nan")), r"not a manifest"),
        (lambda d: d.clear(), r"not a manifest"),
    ],
)
def test_a_manifest_that_lies(folder: Path, spoil: Callable[[Document], object], message: str) -> None:
    change(folder, spoil)
    with pytest.raises(ShardError, match=message) as caught:
        ShardSet.open(folder)
    assert str(folder) in str(caught.value)
    assert "temper shards SRC DST" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[" * 100_000, "not a manifest"), (b"\xff\xfe", "not a manifest"), (b"", "not a manifest")],
    ids=["deep", "bytes", "empty"],
)
def test_a_manifest_that_is_none(folder: Path, content: bytes, message: str) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ShardError, match=message):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (put_labels([0, 99]), r"labels 0\.\.99, 'classes' has 5 names"),
        (put_labels([-1]), r"labels -1\.\.4, 'classes' has 5 names"),
        (put_labels([None, None]), r"parquet: 2 rows have no label"),
        (lambda table: table.slice(0, 20), r"20 rows, the manifest says \d+"),
        (lambda table: table.drop_columns(["label"]), r"expected the columns image .* and label"),
        (lambda table: table.set_column(1, "label", table["label"].cast(pa.int32())), r"label \(int64\)"),
        (put_image(b"no image"), r"'fingerprint' is \w{16}, but that of the shards is \w{16}"),
    ],
    ids=["label", "negative", "null", "rows", "column", "type", "image"],
)
def test_shards_that_do_not_hold_what_is_said(
    folder: Path, spoil: Callable[[pa.Table], pa.Table], message: str
) -> None:
    rewrite(folder, spoil)
    with pytest.raises(ShardError, match=message):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot identify image file"),
        (b"", "cannot identify image file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "cannot identify image file"),
        (encoded("PNG", Image.new("L", (8, 8)))[:43], "runcated|Truncated|broken"),
        (encoded("PNG", Image.new("L", (3000, 3000))), r"3000 x 3000 pixels, the manifest says .* 8\.\.8"),
        (encoded("PNG", Image.new("L", (2, 2))), r"2 x 2 pixels, the manifest says .* 8\.\.8"),
    ],
    ids=["null", "empty", "postscript", "truncated", "huge", "small"],
)
def test_an_image_that_cannot_be_decoded_is_named(
    folder: Path, as_large: None, content: bytes | None, message: str
) -> None:
    rewrite(folder, put_image(content))
    shards = ShardSet.open(folder)
    split = next(name for name in ("train", "val", "test") if 0 in shards.manifest.splits[name])
    with pytest.raises(ShardError, match=rf"parquet: row 0 cannot be decoded \(.*({message})"):
        load_images(shards, split, ImageView(8))


def test_a_bomb_in_a_shard_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded("PNG", Image.new("L", (40, 40)))
    for limit in (1500, 700):  # Pillow warns above its limit, and raises above twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises((ValueError, Warning, Image.DecompressionBombError)):
            ImageView(8).decode(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert ImageView(8).decode(content).shape == (3, 8, 8)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_shard_that_was_cut_short(folder: Path, share: float) -> None:
    path = shard_of(folder)
    size = int(path.stat().st_size * share)
    os.truncate(path, size)
    with pytest.raises(ShardError, match=rf"parquet: {size} bytes, the manifest says"):
        ShardSet.open(folder)
    change(folder, lambda document: document["shards"][0].update(bytes=size))
    with pytest.raises(ShardError, match=r"parquet: changed since it was written \(SHA-256 differs\)"):
        ShardSet.open(folder)


@pytest.mark.parametrize("is_large", [False, True])
def test_a_shard_that_changes_under_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    """Images and labels of before, or an error: never those of after."""
    if is_large:
        monkeypatch.setattr(integrity, "WHOLE_BYTES", 0)
    shards = ShardSet.open(folder)
    before = load_images(shards, "train", ImageView(8))
    path = shard_of(folder)
    whole = path.read_bytes()
    other = put_image(encoded("PNG", Image.new("L", (8, 8), 128)))(pq.read_table(path))
    pq.write_table(other, path, row_group_size=256)
    with pytest.raises(ShardError, match=rf"{path.name}: changed since it was written .*copy it again"):
        load_images(shards, "train", ImageView(8))
    path.write_bytes(whole)
    again = load_images(shards, "train", ImageView(8))
    assert np.array_equal(again.images, before.images)
    path.unlink()
    with pytest.raises(ShardError, match=rf"{path.name}: cannot be read \(No such file"):
        load_images(shards, "train", ImageView(8))


def test_a_file_is_hashed_once_while_it_stays_as_it_is(
    folder: Path, as_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counting(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(integrity, "sha256_of", counting)
    shards = ShardSet.open(folder)
    assert not hashed
    for _ in range(3):
        load_images(shards, "train", ImageView(8))
    assert sorted(hashed) == sorted({folder / group.file for group in groups_of(shards, "train")})
    os.utime(hashed[0])
    load_images(shards, "train", ImageView(8))
    assert hashed.count(hashed[0]) == 2


def groups_of(shards: ShardSet, split: Any) -> Iterator[RowGroup]:
    rows = shards.rows(split)
    return (g for g in shards.row_groups if np.any((rows >= g.start) & (rows < g.start + g.num_rows)))


def flips(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``content`` with one byte changed, cut off, or doubled, at seeded random places."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        place = int(generator.integers(len(content)))
        match int(generator.integers(4)):
            case 0 | 1:
                changed = bytearray(content)
                changed[place] ^= int(generator.integers(1, 256))
                yield bytes(changed)
            case 2:
                yield content[:place]
            case _:
                yield content[:place] + content[place : place + 1] + content[place:]


def test_any_byte_of_a_shard_that_changes_is_noticed(folder: Path) -> None:
    path = shard_of(folder)
    for content in flips(path.read_bytes(), 300, seed=0):
        path.write_bytes(content)
        with pytest.raises(ShardError, match=path.name):
            ShardSet.open(folder)


def test_a_shard_that_was_changed_with_its_digest_never_ends_in_a_traceback(
    folder: Path, as_large: None
) -> None:
    """PyArrow and Pillow then read what was damaged."""
    path = shard_of(folder)
    outcomes = {True: 0, False: 0}
    for content in flips(path.read_bytes(), 100, seed=1):
        path.write_bytes(content)
        change(folder, lambda d: d["shards"][0].update(bytes=path.stat().st_size, sha256=sha256_of(path)))
        try:
            load_images(ShardSet.open(folder), "train", ImageView(8))
            outcomes[True] += 1
        except TemperError:
            outcomes[False] += 1
    assert outcomes[False] > 10


def test_any_byte_of_a_manifest_that_changes_is_refused_or_changes_nothing(folder: Path) -> None:
    """What may differ unseen names the set (``name``), its seed, its bytes, or files that were left out."""
    path = folder / "manifest.json"
    truth = ShardSet.open(folder).manifest
    counted = {"classes", "counts", "fingerprint", "shards", "splits", "schema_version"}
    refused: list[str] = []
    for content in flips(path.read_bytes(), 400, seed=2):
        path.write_bytes(content)
        try:
            found = ShardSet.open(folder).manifest
        except ShardError as problem:
            refused.append(str(problem))
            continue
        same = found.model_dump(include=counted)
        assert same == truth.model_dump(include=counted)
    assert len(refused) > 300
    assert max(map(len, refused)) < 1000
