"""Nodes that go and come under a run, on a cluster of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.parametrize("notice", [[], ["--drain"]], ids=["without a word", "with notice"])
def test_a_node_goes_and_another_joins_and_each_image_is_used_once(notice: list[str]) -> None:
    command = [sys.executable, str(ROOT / "bench/elastic.py"), "--epochs", "30", *notice]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"drain"')))
    assert told["errors"] == []
    assert told["is_finished"]
    assert (told["used_twice"], told["epochs_missing"]) == (0, 0)
    assert (told["updates"], told["images_per_epoch"]) == (30 * 7 * 2, [200])
