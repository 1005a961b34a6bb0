"""A cluster that is a head alone, until there is work: Ray's autoscaler, with nodes on this machine."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from temper.records import SweepFolder, read_ledger

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
PATIENCE_S = 240
IDLE_MINUTES = 0.25
SPACE = {
    "samples": 4,
    "finalists": 1,
    "scheduler": None,
    "parameters": {"objective.alpha": {"loguniform": [0.03, 1.0]}},
}
FAKE_HEAD = "f" * 51 + "00000"
"""By this id Ray's fake provider knows the head."""
SCALING = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD,
}

NOTHING = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
"""Nodes on this machine need no files and no commands; the keys have to be there."""


def scaling(path: Path, address: str) -> Path:
    """As in cluster.yaml: a head without work of its own, and workers from none to two."""
    worker = {"CPU": 1, "object_store_memory": 80 * 2**20}
    document = {
        "cluster_name": "one-machine",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            # Ray's own name for it, fake_multinode, looks for a file that its wheel has not.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD,
            "gcs_address": address,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        **{key: [] for key in NOTHING},
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def head(start_head: Any, tmp_path: Path) -> Any:
    path = tmp_path / "scaling.yaml"
    return start_head(
        0,
        f"--autoscaling-config={path}",
        before=lambda head: scaling(path, head.gcs),
        **SCALING,
    )


def num_workers(head: Any) -> int:
    """Nodes beside the head's."""
    count = 0
    for process in head.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            count += process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE
    return count - 1


def seconds_until(event: Callable[[], bool], what: str) -> float:
    started = time.monotonic()
    while not event():
        assert time.monotonic() - started < PATIENCE_S, f"waited in vain for {what}"
        time.sleep(0.2)
    return time.monotonic() - started


def test_a_sweep_on_a_head_alone_brings_workers_up_ends_and_lets_them_go(
    head: Any, tiny_recipe: Any, tmp_path: Path, record_property: Any
) -> None:
    recipe, space, out = tmp_path / "recipe.yaml", tmp_path / "space.yaml", SweepFolder(tmp_path / "sweep")
    small = {"evaluation__suite": "quick", "evaluation__max_images": 16, "validation__max_images": 32}
    recipe.write_text(yaml.safe_dump(tiny_recipe(epochs=8, **small).resolved()))
    space.write_text(yaml.safe_dump(SPACE))
    command = [sys.executable, str(ROOT / "jobs/sweep.py"), str(recipe), str(space), "--out", str(out.path)]
    environment = {**os.environ, "RAY_ADDRESS": head.gcs}
    assert num_workers(head) == 0

    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "a trial needs 1 CPUs, the cluster has 0" in refused.stderr
    assert "if the cluster grows, set its limit in TEMPER_CLUSTER_MAX" in refused.stderr
    assert not out.path.exists()

    process = subprocess.Popen(
        command,
        env={**environment, "TEMPER_CLUSTER_MAX": "CPU=2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    grown = seconds_until(lambda: num_workers(head) == 2 or process.poll() is not None, "two workers")
    record_property("start_to_two_workers_s", grown)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    rows = read_ledger(out.ledger)
    assert sorted(row.status for row in rows) == ["finished"] * SPACE["samples"]
    for trial in out.trials.iterdir():
        lines = (trial / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines if "train/loss" in line] == list(range(1, 9))
    record_property("end_to_none_s", seconds_until(lambda: num_workers(head) == 0, "no workers"))
