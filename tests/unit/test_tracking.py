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
from temper.tracking import TrackingSpec, build_tracker, publish_board

SECRET = "k" * 40


def read_wandb(folder: Path, path: Path | None = None) -> list[Any]:
    """The records of a finished offline run, the last of which W&B's own process may still be writing."""
    path = path or next(folder.glob("wandb/offline-run-*/*.wandb"))
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
    assert [row["epoch"] for row in rows] == [1, 2, 1], "from 1, as people count"
    assert rows[2]["val/target/clean_acc"] == 0.5


def session(run: RunFolder, spec: TrackingSpec, epochs: range, start_epoch: int) -> None:
    tracker = build_tracker(spec, run, name="x", config={}, start_epoch=start_epoch)
    for epoch in epochs:
        tracker.log({"train/loss": 1.0 + epoch}, epoch=epoch)
    tracker.finish()


def logged_runs(folder: Path) -> list[tuple[str, list[int], list[int]]]:
    """Of each offline folder, oldest first: the run's id, its epochs, and W&B's own steps."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        records = read_wandb(folder, path)
        ids = {record.run.run_id for record in records if record.HasField("run")}
        history = [record.history for record in records if record.HasField("history")]
        epochs = [
            json.loads(item.value_json)
            for one in history
            for item in one.item
            if "epoch" in (item.key, *item.nested_key)
        ]
        assert len(ids) == 1
        found.append((ids.pop(), epochs, [one.step.num for one in history]))
    return found


def test_a_resumed_run_is_one_run_everywhere(tmp_path: Path) -> None:
    """Also one that was interrupted within its first epoch."""
    run, spec = RunFolder(tmp_path / "run"), TrackingSpec()
    session(run, spec, range(0), 0)
    session(run, spec, range(3), 0)
    session(run, spec, range(3, 5), 3)
    runs = [one for one in logged_runs(run.path) if one[1]]
    assert len({one for one, _, _ in logged_runs(run.path)}) == 1
    assert [(epochs, steps) for _, epochs, steps in runs] == [([1, 2, 3], [0, 1, 2]), ([4, 5], [3, 4])]
    assert len(list(run.tensorboard.iterdir())) == 3
    assert scalars(run.tensorboard) == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}


def test_epochs_that_are_repeated_replace_the_former_ones(tmp_path: Path) -> None:
    run, spec = RunFolder(tmp_path / "run"), TrackingSpec(wandb=False)
    session(run, spec, range(5), 0)
    tracker = build_tracker(spec, run, name="x", config={}, start_epoch=2)
    tracker.log({"train/loss": 9.0}, epoch=2)
    tracker.finish()
    assert scalars(run.tensorboard) == {1: 1.0, 2: 2.0, 3: 9.0}
    assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3]


def test_a_run_that_begins_anew_is_another_run(tmp_path: Path) -> None:
    run, spec = RunFolder(tmp_path / "run"), TrackingSpec(tensorboard=False)
    session(run, spec, range(1), 0)
    session(run, spec, range(1), 0)
    first, second = logged_runs(run.path)
    assert first[0] != second[0]


def scalars(folder: Path) -> dict[int, float]:
    """Epoch -> loss, as a reader shows it: a file that starts at a step drops what is not before it."""
    found: dict[int, float] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for event in read_events(path.read_bytes()):
            if event.session_log.status == event.session_log.START and event.HasField("session_log"):
                found = {step: value for step, value in found.items() if step < event.step}
            for value in event.summary.value:
                found[event.step] = value.simple_value
    return found


def read_events(content: bytes) -> list[Any]:
    """TensorBoard's messages: eight bytes of length, four of a checksum, the message, four more."""
    from tensorboardX.proto.event_pb2 import Event

    events, position = [], 0
    while position < len(content):
        (length,) = struct.unpack("<Q", content[position : position + 8])
        events.append(Event.FromString(content[position + 12 : position + 12 + length]))
        position += 16 + length
    return events


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (TrackingSpec(tensorboard=False), ("of-env", "env-group", ["a", "b"])),
        (
            TrackingSpec(tensorboard=False, project="own", group="own-group", tags=("c",)),
            ("own", "own-group", ["c"]),
        ),
    ],
)
def test_the_environment_counts_where_the_recipe_says_nothing(
    spec: TrackingSpec, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "of-env")
    monkeypatch.setenv("WANDB_ENTITY", "a-team")
    monkeypatch.setenv("WANDB_RUN_GROUP", "env-group")
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    session(RunFolder(tmp_path), spec, range(1), 0)
    run = next(record.run for record in read_wandb(tmp_path) if record.HasField("run"))
    assert (run.project, run.run_group, sorted(run.tags)) == expected
    assert run.entity == "a-team"


def test_disabled_keeps_nothing_of_w_and_b(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    session(RunFolder(tmp_path), TrackingSpec(), range(1), 0)
    assert not (tmp_path / "wandb").exists()
    assert "W&B" not in caplog.text
    assert (tmp_path / "metrics.jsonl").exists()
    assert publish_board(tmp_path, [], ["a"], [["b"]], None) == "nothing, because WANDB_MODE is disabled"


def test_a_tracker_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "no such mode")
    tracker = build_tracker(TrackingSpec(), RunFolder(tmp_path), name="x", config={})
    tracker.log({"a": 1.0}, epoch=0)
    tracker.finish()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"epoch": 1, "a": 1.0, "first_epoch": 1}
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
