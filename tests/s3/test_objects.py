"""Reading and writing single objects, on storage that fails."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from temper.errors import StorageError
from temper.storage import (
    Address,
    address_of,
    download,
    in_words,
    is_remote,
    list_objects,
    local_path,
    named,
    objects,
    portable,
    read_bytes,
    upload,
    write_bytes,
)
from temper.storage.objects import delete, find
from temper.storage.retry import Retry, persist, refusal_of

SECRET = "an-invented-secret-key"


@pytest.fixture
def place(bucket: str) -> Address:
    return Address.parse(bucket)


def test_what_is_written_is_read_listed_and_removed(place: Address) -> None:
    contents = {"a/one": b"1", "a/b/two": bytes(range(256)) * 40, "three": b"", "ä/ü 4": b"four"}
    for name, content in contents.items():
        write_bytes(place / name, content)
    assert {one.name: one.size for one in list_objects(place)} == {n: len(c) for n, c in contents.items()}
    assert [one.name for one in list_objects(place / "a")] == ["b/two", "one"]
    assert {name: read_bytes(place / name) for name in contents} == contents
    write_bytes(place / "a/one", b"another")
    assert read_bytes(place / "a/one") == b"another"
    delete(place / "a/one")
    delete(place / "a/one")
    assert read_bytes(place / "a/one") is None
    assert find(place / "a/one") is None
    assert list_objects(place / "nothing") == []


def test_a_file_of_several_parts_arrives_as_it_was(
    place: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 100_000)
    content = bytes(range(251)) * 1000
    (tmp_path / "large").write_bytes(content)
    upload(tmp_path / "large", place / "large")
    download(place / "large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize("kind", ["503", "drop", "cut"])
def test_a_request_that_fails_is_made_again(kind: str, proxy: Any, place: Address, tmp_path: Path) -> None:
    content = b"weights" * 1000
    (tmp_path / "file").write_bytes(content)
    # Neither the answer to PUT nor that to HEAD has a body that could be cut.
    proxy.fail("cut upload" if kind == "cut" else kind, 2, "PUT")
    proxy.fail("drop" if kind == "cut" else kind, 1, "HEAD")
    upload(tmp_path / "file", place / "x/file")
    proxy.fail(kind, 2, "GET")
    assert [one.size for one in list_objects(place / "x")] == [len(content)]
    proxy.fail(kind, 2, "GET")
    download(place / "x/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert proxy.faults == []


@pytest.mark.parametrize("kind", ["503", "drop", "cut upload"])
def test_a_large_upload_that_is_cut_off_never_leaves_half_a_file(
    kind: str, proxy: Any, place: Address, tmp_path: Path
) -> None:
    write_bytes(place / "file", b"the former one")
    content = bytes(range(253)) * (12 * 2**20 // 253)  # PyArrow sends parts of 10 MiB
    (tmp_path / "file").write_bytes(content)
    proxy.fail(kind, 1, "PUT", "partNumber=2")
    upload(tmp_path / "file", place / "file")
    assert read_bytes(place / "file") == content
    assert proxy.faults == []


def test_storage_that_hangs_is_left_and_asked_again(
    proxy: Any, place: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(place / "file", b"content")
    monkeypatch.setenv("TEMPER_STORAGE_REQUEST_S", "1")
    proxy.fail("slow", 1, "HEAD", seconds=4)
    started = time.monotonic()
    assert read_bytes(place / "file") == b"content"
    assert 0.9 < time.monotonic() - started < 4


def test_no_permission_is_said_at_once(proxy: Any, place: Address) -> None:
    proxy.fail("403", 1, "PUT")
    with pytest.raises(
        StorageError, match=r"s3://bucket-\d+/x/file: cannot be written: no permission"
    ) as caught:
        write_bytes(place / "x/file", b"1")
    assert len(proxy.seen) == 1, "nobody asks twice"
    assert SECRET not in str(caught.value)
    proxy.fail("403", 1)
    with pytest.raises(StorageError, match="cannot be read: no permission"):
        read_bytes(place / "x/file")


def test_no_bucket_is_said_at_once(bucket: str) -> None:
    with pytest.raises(StorageError, match="s3://nowhere/file: cannot be written: no such bucket"):
        write_bytes(Address("nowhere", "file"), b"1")
    with pytest.raises(StorageError, match="s3://nowhere/x: cannot be listed: no such bucket"):
        list_objects(Address("nowhere", "x"))


def test_patience_ends_and_the_error_says_what_to_do(
    proxy: Any, place: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPER_STORAGE_LIMIT_S", "1.5")
    proxy.fail("503", 1000)
    started = time.monotonic()
    with pytest.raises(
        StorageError, match=r"cannot be read after \d+ tries in \d s: .*; check that the storage"
    ) as caught:
        read_bytes(place / "file")
    assert time.monotonic() - started < 3
    assert 3 <= len(proxy.seen) <= 8
    assert len(str(caught.value).splitlines()) == 1


def test_a_full_disk_names_the_copy(place: Address, tmp_path: Path) -> None:
    write_bytes(place / "file", b"content")
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"a file/copy: the copy of s3://.*/file cannot be written"):
        download(place / "file", tmp_path / "a file" / "copy")
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_waits_double_within_their_bounds_and_follow_a_seed() -> None:
    retry = Retry(limit_s=100, first_s=0.5, longest_s=4)
    waits = list(itertools.islice(retry.waits("x"), 6))
    for wait, most in zip(waits, (0.5, 1, 2, 4, 4, 4), strict=True):
        assert most / 2 <= wait <= most
    assert list(itertools.islice(retry.waits("x"), 6)) == waits
    assert list(itertools.islice(retry.waits("y"), 6)) != waits


def test_errors_of_this_machine_are_not_tried_again() -> None:
    tries = itertools.count()

    def work() -> None:
        next(tries)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        persist(work, "here", "written", Retry())
    assert next(tries) == 1


@pytest.mark.parametrize(
    ("message", "is_final"),
    [
        ("AWS Error ACCESS_DENIED during PutObject operation", True),
        ("AWS Error UNKNOWN (HTTP status 400) during HeadObject", True),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject", True),
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce", False),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject", False),
        ("AWS Error UNKNOWN (HTTP status 429) during HeadObject", False),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 18", False),
        ("17 bytes of 20 came", False),
    ],
)
def test_what_is_worth_another_try(message: str, is_final: bool) -> None:
    assert (refusal_of(message) is not None) == is_final


@pytest.mark.parametrize("text", ["s3://bkt/x/y", "s3:/bkt/x/y", "s3://bkt/x/y/", "s3://bkt"])
def test_an_address_has_one_local_folder_and_one_name(bucket: str, text: str) -> None:
    path = Path(text)
    assert is_remote(text)
    assert is_remote(path)
    url = "s3://" + text.removeprefix("s3:").strip("/")
    local = local_path(path)
    assert local.is_absolute()
    assert str(address_of(local)) == str(address_of(path)) == named(local) == named(path) == url
    assert portable(local) == portable(path) == Path(url)
    assert in_words(f"{local}: gone") == in_words(f"{path}: gone") == f"{url}: gone"


@pytest.mark.parametrize(
    "text",
    [
        "s3://bkt/../c",
        "s3://bkt//c",
        "s3://bkt/./c",
        "s3://bkt/c\\d",
        "s3://../c",
        "s3://bkt/x?region=eu",
        "s3://me:hunter2@bkt/x",
    ],
)
def test_an_address_cannot_lead_elsewhere(text: str) -> None:
    with pytest.raises(StorageError, match="expected s3://bucket/prefix") as caught:
        Address.parse(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["runs/s3", "/s3:x", "s3", "gs://b/x", "s3:b"])
def test_other_paths_stay_what_they_are(text: str) -> None:
    assert not is_remote(text)
    assert address_of(text) is None
    assert local_path(Path(text)) == Path(text)
