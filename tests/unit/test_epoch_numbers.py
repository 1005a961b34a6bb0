"""Epochs count from 1 in the files of a run. Those of earlier versions count from 0."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.ended_early import Killed

from temper.cluster.follow import follow_epochs
from temper.cluster.launch import launch
from temper.cluster.sweep.trial_store import read_history
from temper.records import RunFolder, SweepFolder, append_line
from temper.run.facts import course_of
from temper.run.open_data import open_data
from temper.training import read_samples, read_state

SETTINGS = {"epochs": 4, "tracking": {"wandb": False, "samples": True}}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_earlier(path: Path) -> None:
    """As an earlier version wrote it."""
    lines = lines_of(path)
    for line in lines:
        assert line.pop("first_epoch") == 1
        line["epoch"] -= 1
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def interrupted_earlier(recipe: Any, path: Path) -> RunFolder:
    """A run of an earlier version that was ended after its second epoch."""
    run = RunFolder(path)

    def kill(metrics: Any) -> None:
        if metrics["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        launch(recipe, run.path, on_epoch=kill)
    for log in (run.metrics, run.samples / "rank-00000.jsonl"):
        make_earlier(log)
    assert [line["epoch"] for line in lines_of(run.metrics)] == [0, 1]
    return run


def test_a_run_of_an_earlier_version_is_resumed_as_one(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe, whole = tiny_recipe(**SETTINGS), RunFolder(tmp_path / "whole")
    launch(recipe, whole.path)
    run = interrupted_earlier(recipe, tmp_path / "run")
    launch(recipe, run.path)
    for log in (run.metrics, run.samples / "rank-00000.jsonl"):
        expected = lines_of(whole.path / log.relative_to(run.path))
        unequal = {"cost/train_s": 0.0}
        assert [line | unequal for line in lines_of(log)] == [line | unequal for line in expected]
    assert [line["epoch"] for line in lines_of(run.metrics)] == [1, 2, 3, 4]
    assert {line["epoch"] for line in lines_of(run.samples / "rank-00000.jsonl")} == {1, 2, 3, 4}


def test_what_reads_the_logs_sees_the_same_in_both(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe, folder = tiny_recipe(**SETTINGS), SweepFolder(tmp_path)
    run, target = folder.trial("000"), open_data(recipe).shards["target"]
    launch(recipe, run.path)

    def read() -> tuple[Any, ...]:
        course = course_of(run, read_state(run.last), target, None)
        history = read_history(folder, "000", "val/target/clean_acc")
        return read_samples(run), history, (course.first_epoch, course.losses)

    now = read()
    assert [epoch for epoch, _ in now[1]] == [1, 2, 3, 4]
    assert now[2][0] == 0
    for log in (run.metrics, run.samples / "rank-00000.jsonl"):
        make_earlier(log)
    assert read() == now


def test_lines_of_both_kinds_are_followed(tmp_path: Path) -> None:
    seen: list[Any] = []
    path = tmp_path / "metrics.jsonl"
    with follow_epochs(path, seen.append):
        time.sleep(0.1)
        append_line(path, {"epoch": 0, "a": 1.0})
        append_line(path, {"epoch": 2, "a": 2.0, "first_epoch": 1})
    assert seen == [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 2.0}]
