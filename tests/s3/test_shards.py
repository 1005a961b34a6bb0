"""Shards that lie in S3."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.data import FoldSpec, ImageView, ShardSet, integrity, load_images, write_shards
from temper.errors import ShardError, StorageError
from temper.storage import Address, read_bytes, upload, write_bytes

Machine = Callable[[str], Path]


@pytest.fixture
def shards(bucket: str, digits: dict[str, Path]) -> Address:
    """The target digits."""
    place = Address.parse(f"{bucket}/shards/digits")
    for path in digits["target"].iterdir():
        upload(path, place / path.name)
    return place


def forget() -> None:
    """What this process knows of files that it has hashed, as if it were another."""
    integrity._HASHED.clear()
    integrity._AGREED.clear()


def test_shards_in_s3_are_those_of_a_folder(
    shards: Address, digits: dict[str, Path], machine: Machine
) -> None:
    here, there = ShardSet.open(digits["target"]), ShardSet.open(Path(str(shards)))
    assert there.manifest == here.manifest
    for one, other in ((here, there), (here.few_shot(3, 0), there.few_shot(3, 0))):
        for split in ("train", "val", "test"):
            expected, found = load_images(one, split, ImageView(16)), load_images(other, split, ImageView(16))
            np.testing.assert_array_equal(found.images, expected.images)
            np.testing.assert_array_equal(found.labels, expected.labels)
    fold = FoldSpec(index=0, count=3, seed=0)
    assert fold.apply(there).fingerprint == fold.apply(here).fingerprint


def test_shards_are_written_to_s3_whole(bucket: str, digits: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache-a"
    place = Path(f"{bucket}/shards/new")
    manifest = write_shards(digits["images"], place)
    opened = ShardSet.open(place)
    assert opened.fingerprint == manifest.fingerprint == ShardSet.open(digits["target"]).fingerprint
    opened.verify()
    with pytest.raises(ShardError, match=r"s3://.*/shards/new: already exists"):
        write_shards(digits["images"], place)
    with pytest.raises(
        ShardError,
        match=r"s3://bucket-\d+/nothing: no shards here; create them with `temper shards SRC s3://",
    ):
        ShardSet.open(Path(f"{bucket}/nothing"))
    assert {path.name for path in cache.iterdir()} <= {"shards", "locks"}, "nothing temporary is left"


def test_processes_that_need_a_shard_at_once_fetch_it_once(
    proxy: Any, shards: Address, digits: dict[str, Path]
) -> None:
    def read(_: int) -> int:
        forget()  # each looks anew
        return len(load_images(ShardSet.open(Path(str(shards))), "train", ImageView(16)).labels)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(read, range(6)))) == 1
    for path in digits["target"].glob("*.parquet"):
        assert len([line for line in proxy.seen if line.startswith("GET") and path.name in line]) == 1


def test_storage_that_fails_now_and_then_changes_nothing(
    proxy: Any, shards: Address, digits: dict[str, Path]
) -> None:
    for kind in ("503", "cut", "drop"):
        proxy.fail(kind, 2, "GET")
    found = load_images(ShardSet.open(Path(str(shards))), "train", ImageView(16))
    np.testing.assert_array_equal(
        found.images, load_images(ShardSet.open(digits["target"]), "train", ImageView(16)).images
    )
    assert proxy.faults == []


def test_a_shard_that_changed_in_s3_is_refused(
    shards: Address, digits: dict[str, Path], tmp_path: Path, machine: Machine
) -> None:
    name = next(digits["target"].glob("train-*.parquet")).name
    content = bytearray(read_bytes(shards / name) or b"")
    content[len(content) // 2] ^= 1
    write_bytes(shards / name, bytes(content))
    with pytest.raises(
        ShardError, match=rf"s3://.*/{name}: changed since it was written \(SHA-256 differs\)"
    ):
        ShardSet.open(Path(str(shards)))
    assert name not in {path.name for path in (tmp_path / "cache-a/shards").iterdir()}
    write_bytes(shards / name, bytes(content[:-1]))
    with pytest.raises(ShardError, match=rf"s3://.*/{name}: {len(content) - 1} bytes, the manifest says"):
        ShardSet.open(Path(str(shards)))


def test_a_copy_that_was_damaged_is_fetched_again(shards: Address, tmp_path: Path) -> None:
    load_images(ShardSet.open(Path(str(shards))), "train", ImageView(16))
    copies = list((tmp_path / "cache-a/shards").iterdir())
    assert copies
    for path in copies:
        path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    assert len(load_images(ShardSet.open(Path(str(shards))), "train", ImageView(16)).labels)


def test_large_shards_are_copied_only_where_their_images_are_read(
    shards: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "WHOLE_BYTES", 0)
    forget()
    opened = ShardSet.open(Path(str(shards)))
    assert len(opened.labels) == sum(shard.num_rows for shard in opened.manifest.shards)
    assert not (tmp_path / "cache-a/shards").exists()
    load_images(opened, "val", ImageView(16))
    copies = {path.stem for path in (tmp_path / "cache-a/shards").iterdir()}
    assert 0 < len(copies) <= len(opened.manifest.shards)


def test_a_cache_that_cannot_be_written_is_one_clear_line(
    shards: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TEMPER_CACHE", str(tmp_path / "file"))
    forget()
    with pytest.raises(
        StorageError, match=r"file/locks/.*: cannot be written .*; set TEMPER_CACHE to another"
    ):
        ShardSet.open(Path(str(shards)))
