import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.records import RunFolder, read_record
from temper.tracking import TrackingSpec, build_tracker

SECRET = "k" * 40


def read_wandb(folder: Path) -> list[Any]:
    """The records of a finished offline run, the last of which W&B's own process may still be writing."""
    path = next(folder.glob("wandb/offline-run-*/*.wandb"))
    limit = time.monotonic() + 60
    while not (records := read_records(path.read_bytes())) or not records[-1].HasField("exit"):
        assert time.monotonic() < limit, records
        time.sleep(0.1)
    return records


def read_records(content: bytes) -> list[Any]:
    """W&B's messages in LevelDB's log format, as far as they are written."""
    from wandb.proto import wandb_internal_pb2

    records, parts, position = [], b"", 7
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        if position + 7 + length > len(content):
            break
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def test_an_offline_run_holds_config_group_and_history(
    tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    recipe = tiny_recipe(tracking={"wandb": True, "group": "sweep-1"})
    launch(recipe, tmp_path / "run")
    records = read_wandb(tmp_path / "run")
    runs = [record.run for record in records if record.HasField("run")]
    assert (runs[0].project, runs[0].run_group, runs[0].display_name) == ("temper", "sweep-1", "tiny")
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["objective"]["alpha"] == 0.3
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["val/target/robust_acc"] for row in history] == [
        row["val/target/robust_acc"] for row in lines
    ]
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_an_epoch_may_be_heard_of_after_later_ones(tmp_path: Path) -> None:
    tracker = build_tracker(TrackingSpec(), RunFolder(tmp_path), name="x", config={})
    for epoch, name in ((0, "train/loss"), (1, "train/loss"), (0, "val/target/clean_acc")):
        tracker.log({name: 0.5}, epoch=epoch)
    tracker.finish()
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in read_wandb(tmp_path)
        if record.HasField("history")
    ]
    assert [row["epoch"] for row in rows] == [0, 1, 0]
    assert rows[2]["val/target/clean_acc"] == 0.5


def test_a_tracker_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "no such mode")
    tracker = build_tracker(TrackingSpec(), RunFolder(tmp_path), name="x", config={})
    tracker.log({"a": 1.0}, epoch=0)
    tracker.finish()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"epoch": 0, "a": 1.0}
    assert "W&B tracking stopped" in caplog.text


def test_without_a_network_runs_are_kept_offline_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WANDB_MODE", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        for name in ("a", "b"):
            tracker = build_tracker(TrackingSpec(), RunFolder(tmp_path / name), name=name, config={})
            tracker.log({"a": 1.0}, epoch=0)
            tracker.finish()
            assert list((tmp_path / name).glob("wandb/offline-run-*/*.wandb"))
    assert caplog.text.count("cannot be reached") == 1
    assert "W&B tracking stopped" not in caplog.text


def test_only_the_chief_tracks(tmp_path: Path) -> None:
    tracker = build_tracker(TrackingSpec(), RunFolder(tmp_path), name="x", config={}, is_chief=False)
    tracker.log({"a": 1.0}, epoch=0)
    tracker.finish()
    assert not list(tmp_path.iterdir())


def test_an_evaluation_shows_its_figure_in_a_run_of_its_own(evaluated_run: Path, tmp_path: Path) -> None:
    settings = {"tracking.wandb": True, "tracking.group": "sweep-1", "evaluation.max_images": 16}
    record = evaluate_run(evaluated_run, settings, out=tmp_path)
    records = read_wandb(tmp_path)
    run = next(row.run for row in records if row.HasField("run"))
    assert (run.display_name, run.run_group, run.job_type) == ("tiny", "sweep-1", "evaluate")
    logged = {
        item.nested_key[1]: json.loads(item.value_json)
        for row in records
        if row.HasField("history")
        for item in row.history.item
        if list(item.nested_key)[:1] == ["test/target/adversarial"]
    }
    assert logged["_type"] == "image-file"
    assert logged["sha256"] == record.files["figure"].sha256
    media = next(tmp_path.glob(f"wandb/offline-run-*/files/{logged['path']}"))
    assert media.read_bytes() == (tmp_path / "figure.png").read_bytes()
    summary = {
        item.key: json.loads(item.value_json)
        for row in records
        if row.HasField("summary")
        for item in row.summary.update
    }
    assert summary["test/target/robust_acc"] == record.robust_acc.value


def test_an_evaluation_without_tracking_shows_nothing(evaluated_run: Path) -> None:
    assert (evaluated_run / "figure.png").is_file()
    assert not (evaluated_run / "wandb").exists()


def test_an_evaluation_outlives_broken_tracking(
    evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "no such mode")
    settings = {"tracking.wandb": True, "evaluation.max_images": 8}
    record = evaluate_run(evaluated_run, settings, out=tmp_path)
    assert record == read_record(tmp_path / "record.json")
    assert "W&B tracking stopped" in caplog.text
