"""Records in S3, against a server that speaks its protocol."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

from temper.errors import UsageError
from temper.leaderboard import build_leaderboard
from temper.leaderboard.import_entries import import_entries

SECRET = "an-invented-secret-key"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3FileSystem:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-invented-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    system = S3FileSystem(
        endpoint_override=endpoint.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    system.create_dir("models", recursive=True)
    return system


def put(bucket: S3FileSystem, folder: Path, place: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with bucket.open_output_stream(f"models/{place}/{path.relative_to(folder).as_posix()}") as file:
                file.write(path.read_bytes())


def test_a_board_of_records_in_s3_is_that_of_the_same_records_here(
    vary: Any, bucket: S3FileSystem, tmp_path: Path
) -> None:
    for place, num_robust in (("strong", 60), ("weak", 20)):
        vary(tmp_path / "runs", place, np.arange(80) < num_robust)
    (tmp_path / "runs/strong/checkpoint").mkdir()
    (tmp_path / "runs/strong/checkpoint/model.safetensors").write_bytes(b"large")
    (tmp_path / "info/Linf").mkdir(parents=True)
    entry = {"name": "Invented", "dataset": "a", "eps": "0.1", "clean_acc": "90", "autoattack_acc": "50"}
    (tmp_path / "info/Linf/Doe2026.json").write_text(json.dumps(entry))
    import_entries([tmp_path / "info"], tmp_path / "runs")
    put(bucket, tmp_path / "runs", "team/runs")
    here = build_leaderboard([tmp_path / "runs"], tmp_path / "here")
    there = build_leaderboard([Path("s3://models/team/runs")], tmp_path / "there")
    ranks = [
        [(entry.rank, entry.name, entry.robust_acc) for entry in b.boards[0].entries] for b in (here, there)
    ]
    assert ranks[0] == ranks[1]
    assert [name for _, name, _ in ranks[0]] == ["strong", "weak"]
    copied = {path.name for path in (tmp_path / "there/remote").rglob("*") if path.is_file()}
    assert [entry.name for entry in there.external[0].entries] == ["Doe2026"]
    assert copied == {"record.json", "outcomes.parquet", "external.json"}, "weights stay where they are"
    one = build_leaderboard([Path("s3://models/team/runs/weak/record.json")], tmp_path / "one")
    assert [entry.name for entry in one.boards[0].entries] == ["weak"]


@pytest.mark.parametrize("place", ["models/nothing/here", "no-such-bucket/runs"])
def test_a_place_with_nothing_in_it_is_one_clear_line(
    place: str, bucket: S3FileSystem, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        build_leaderboard([Path(f"s3://{place}")], tmp_path / "out")
    assert str(caught.value).startswith(f"s3://{place}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert SECRET not in str(caught.value)


def test_a_server_that_is_not_there_is_one_clear_line(
    bucket: S3FileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TEMPER_STORAGE_LIMIT_S", "1")
    with pytest.raises(UsageError, match="s3://models/runs: cannot be listed") as caught:
        build_leaderboard([Path("s3://models/runs")], tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
