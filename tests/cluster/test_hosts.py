"""Train, sweep and evaluate over hosts that share no more than a network and a file system."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from temper.records import SweepFolder, read_ledger, read_record
from temper.training import read_state

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
PATIENCE_S = 240
SMALL = {"evaluation__suite": "quick", "evaluation__max_images": 16, "validation__max_images": 32}


def command(job: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / f"jobs/{job}.py"), *map(str, arguments)]


def wait_for(process: subprocess.Popen[str], event: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and not event():
        assert time.monotonic() < deadline, "it stands still"
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


def epochs_of(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["epoch"] for line in lines if "train/loss" in line]


def losses_of(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train/loss"] for line in lines if "train/loss" in line]


@pytest.fixture
def recipe(tiny_recipe: Any, tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tiny_recipe(**SMALL, **changes).resolved()))
        return path

    return write


def test_two_hosts_train_together_over_a_slow_link_and_through_a_cut_one(
    hosts: Any, recipe: Any, tmp_path: Path
) -> None:
    """Every epoch is there once, and what was evaluated on one host is the same on another."""
    path = recipe(epochs=8, workers={"num_workers": 2})
    hosts.start()
    hosts.workers[0].slow_down("100mbit")
    run, address = tmp_path / "run", {"RAY_ADDRESS": hosts.address}
    process = hosts.head.start(*command("train", path, "--out", run), **address)
    wait_for(process, lambda: len(epochs_of(run)) >= 2)
    where = [host.ip for host in hosts.workers if "RayTrainWorker" in " ".join(host.processes().values())]
    assert len(where) == 2, where
    hosts.workers[1].cut()
    # Ray gives the host up; what would start another one in a cloud, does it here.
    wait_for(process, lambda: hosts.workers[1].ip not in hosts.alive())
    hosts.workers[1].kill()
    hosts.workers[1].mend()
    hosts.join(hosts.workers[1])
    finish(process)
    assert epochs_of(run) == list(range(1, 9))
    assert read_state(run / "last").is_settled

    trained = read_record(run / "record.json")
    refused = hosts.head.start(*command("evaluate", run), **address)
    said, _ = refused.communicate(timeout=PATIENCE_S)
    assert refused.returncode == 1
    assert "already evaluated, and a record is never overwritten; pass --out" in said
    assert "ray::" not in said
    finish(hosts.head.start(*command("evaluate", run, "--out", tmp_path / "again"), **address))
    again = read_record(tmp_path / "again/record.json")
    assert (again.clean_acc.value, again.robust_acc.value) == (
        trained.clean_acc.value,
        trained.robust_acc.value,
    )


def test_a_sweep_goes_on_without_a_lost_host_and_after_a_dead_head(
    hosts: Any, recipe: Any, tmp_path: Path
) -> None:
    path, out = recipe(epochs=20), SweepFolder(tmp_path / "sweep")
    space = tmp_path / "space.yaml"
    space.write_text(
        yaml.safe_dump(
            {
                "samples": 4,
                "finalists": 1,
                "scheduler": None,
                "parameters": {"objective.alpha": {"loguniform": [0.03, 1.0]}},
            }
        )
    )

    def begun() -> list[Path]:
        return [trial for trial in out.trials.glob("*") if epochs_of(trial)]

    hosts.start()
    address = {"RAY_ADDRESS": hosts.address}
    process = hosts.head.start(*command("sweep", path, space, "--out", out.path), **address)
    wait_for(process, lambda: len(begun()) == 2)
    assert not out.ledger.exists() or not out.ledger.read_text(), "both are at work"
    hosts.workers[1].cut()
    wait_for(process, lambda: len(read_ledger(out.ledger)) >= 2 if out.ledger.exists() else False)
    before = read_ledger(out.ledger)
    hosts.head.kill()
    process.communicate(timeout=60)
    assert process.returncode != 0
    # Raylets outlive their head for a while; the new cluster is another one.
    for worker in hosts.workers:
        worker.kill()
        worker.mend()
    hosts.start()
    finish(hosts.head.start(*command("sweep", "--resume", out.path), **address))
    rows = read_ledger(out.ledger)
    assert rows[: len(before)] == before
    assert sorted(row.trial for row in rows) == sorted(path.name for path in out.trials.iterdir())
    assert {row.status for row in rows} == {"finished"}
    for trial in out.trials.iterdir():
        assert epochs_of(trial) == list(range(1, 21))
