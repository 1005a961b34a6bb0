"""A sweep whose driver is killed again and again, as its users run it: from the command line."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from temper.records import SweepFolder, read_ledger
from temper.search import SearchSpace, baseline_trial, build_trials

pytestmark = pytest.mark.usefixtures("ray_cluster")

SPACE = {
    "samples": 8,
    "finalists": 1,
    "scheduler": {"kind": "asha", "grace_epochs": 1, "reduction_factor": 2},
    "baseline": {"objective.adversary": None},
    "parameters": {
        "objective.alpha": {"loguniform": [0.03, 1.0]},
        "schedule.kind": {"choice": ["full", "last_k"]},
        "schedule.k": {"integers": [1, 2], "when": {"schedule.kind": "last_k"}},
    },
}
SHRINK = {
    "epochs": 4,
    "evaluation__suite": "quick",
    "evaluation__max_images": 16,
    "validation__max_images": 32,
}
PATIENCE_S = 240
ROOT = Path(__file__).parents[2]


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "jobs/sweep.py"), *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def num_lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def wait_for(process: subprocess.Popen[str], event: Callable[[], bool]) -> None:
    """Until ``event``, or until there is nothing left to wait for."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and not event():
        assert time.monotonic() < deadline, "the sweep stands still"
        time.sleep(0.05)


@pytest.fixture
def files(tiny_recipe: Any, tmp_path: Path) -> tuple[Path, Path]:
    recipe, space = tmp_path / "recipe.yaml", tmp_path / "space.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(**SHRINK).resolved()))
    space.write_text(yaml.safe_dump(SPACE))
    return recipe, space


@pytest.mark.long
@pytest.mark.parametrize("num_kills", [2, 5])
def test_kills_at_random_moments_lose_and_repeat_nothing(
    files: tuple[Path, Path], tiny_recipe: Any, tmp_path: Path, num_kills: int
) -> None:
    hunted = SweepFolder(tmp_path / "hunted")
    generator, num_kept = random.Random(int.from_bytes(os.urandom(4), "big")), 0
    for kill in range(num_kills):
        process = start(*files, "--out", hunted.path) if kill == 0 else start("--resume", hunted.path)
        # Something is there to be lost, and then any moment: between epochs, in one, in a write.
        before = num_lines(hunted.points)
        wait_for(process, lambda before=before: num_lines(hunted.points) > before)  # type: ignore[misc]
        time.sleep(generator.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGKILL, 0), said
        kept = num_lines(hunted.ledger)
        assert kept >= num_kept, "a row that was there is gone"
        num_kept = kept
    last = start("--resume", hunted.path)
    said, _ = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, said

    space, document = SearchSpace.model_validate(SPACE), tiny_recipe(**SHRINK).resolved()
    planned = [*build_trials(space, document, "space"), baseline_trial(space, document, "space")]
    expected = {trial.trial: trial for trial in planned if trial is not None}
    rows = read_ledger(hunted.ledger)
    assert sorted(row.trial for row in rows) == sorted(expected), "every trial exactly once"
    for row in rows:
        assert row.recipe_hash == expected[row.trial].recipe.hash
        assert row.overrides == expected[row.trial].overrides
        assert row.status in ("finished", "stopped")


@pytest.mark.long
def test_ctrl_c_ends_in_order_and_says_how_to_resume(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = SweepFolder(tmp_path / "sweep")
    process = start(*files, "--out", out.path)
    wait_for(process, lambda: num_lines(out.ledger) >= 1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"resume with `temper sweep --resume {out.path}`" in " ".join(said.split())
    assert "Traceback" not in said
    rows = read_ledger(out.ledger)
    assert 1 <= len(rows) < 9
    assert {row.status for row in rows} <= {"finished", "stopped"}


@pytest.fixture
def hosts() -> Iterator[Any]:
    """A cluster of its own: a head that runs no trial, and two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, **node})
    for _ in range(2):
        cluster.add_node(num_cpus=1, wait=False, **node)
    yield cluster
    cluster.shutdown()


@pytest.mark.long
def test_a_lost_node_costs_no_trial_and_no_epoch(
    hosts: Any, tiny_recipe: Any, files: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, space = files
    recipe.write_text(yaml.safe_dump(tiny_recipe(**{**SHRINK, "epochs": 30}).resolved()))
    space.write_text(yaml.safe_dump({**SPACE, "samples": 3, "scheduler": None, "baseline": None}))
    out = SweepFolder(tmp_path / "sweep")

    def begun() -> list[Path]:
        return [path.parent for path in out.trials.glob("*/metrics.jsonl") if num_lines(path)]

    process = start(recipe, space, "--out", out.path, RAY_ADDRESS=hosts.address)
    wait_for(process, lambda: len(begun()) == 2)
    assert num_lines(out.ledger) == 0, "both trials are at work"
    hosts.remove_node(hosts.worker_nodes.copy().pop(), allow_graceful=False)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    rows = read_ledger(out.ledger)
    assert sorted((row.trial, row.status) for row in rows) == [
        (path.name, "finished") for path in sorted(out.trials.iterdir())
    ]
    for trial in out.trials.iterdir():
        lines = (trial / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines if "train/loss" in line] == list(range(1, 31))
