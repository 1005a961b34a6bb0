"""Nodes that go and come under a run: a cluster of its own, in minutes, so only where TEMPER_SLOW is set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif("TEMPER_SLOW" not in os.environ, reason="takes minutes: set TEMPER_SLOW to run it")
def test_a_node_goes_and_another_joins_and_each_image_is_used_once() -> None:
    command = [sys.executable, str(ROOT / "bench/elastic.py"), "--epochs", "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"drain"')))
    assert told["errors"] == []
    assert told["is_finished"]
    assert (told["used_twice"], told["epochs_missing"]) == (0, 0)
    assert (told["updates"], told["images_per_epoch"]) == (30 * 7 * 2, [200])
