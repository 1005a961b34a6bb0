"""What nodes can do with a bucket, before a job is sent there."""

from typing import Any

import pytest

from temper.cluster.jobs.probe import look_around, missing_folders, tidy, write_mark
from temper.storage import Address, list_objects, write_bytes


def test_a_bucket_is_written_seen_and_left_as_it_was(bucket: str) -> None:
    write_bytes(Address.parse(bucket) / "shards/manifest.json", b"{}")
    out = f"{bucket}/runs/a"
    assert missing_folders(out) == []
    assert write_mark(out, ".one") == ""
    reads = {"data.target": f"{bucket}/shards", "data.source": f"{bucket}/elsewhere"}
    found = look_around(out, [".one", ".two"], reads)
    assert found == {"unseen": 1, "unread": {"data.source": f"{bucket}/elsewhere"}}
    tidy(out, [".one", ".two"], [])
    assert [one.name for one in list_objects(Address.parse(bucket))] == ["shards/manifest.json"]


def test_why_a_bucket_is_not_written_comes_back_without_a_key(
    bucket: str, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fail("403", 1, "PUT")
    said = write_mark(f"{bucket}/runs/a", ".one")
    assert f"{bucket}/runs/a/.one: cannot be written" in said
    assert "an-invented" not in said
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TEMPER_STORAGE_LIMIT_S", "1")
    assert "cannot be written" in write_mark(f"{bucket}/runs/a", ".one")
