"""Sweeps on a real Ray cluster: what stops a trial, what does not stop a sweep, who takes over from whom."""

import json
import os
import re
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from temper.api.sweeps import sweep as sweep_and_rank
from temper.cluster.sweep import Watch, resume, sweep
from temper.errors import CheckpointError, SearchSpaceError, TrainingError
from temper.recipe import load_recipe
from temper.records import SweepFolder, read_ledger, read_record
from temper.search import BASELINE, SearchSpace
from temper.training import read_state

pytestmark = pytest.mark.usefixtures("ray_cluster")

EPS = {"objective.adversary.eps": {"uniform": [0.02, 0.1]}}
QUICK = {"evaluation__suite": "quick", "evaluation__max_images": 16, "validation__max_images": 32}


def space(**fields: Any) -> SearchSpace:
    return SearchSpace.model_validate({"parameters": EPS, "scheduler": None, "finalists": 1, **fields})


def trial_pids() -> list[int]:
    """Processes of Tune's that hold a trial just now."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if command.startswith(b"ray::") and (b"run_trial" in command or b"ImplicitFunc" in command):
            found.append(int(entry.name))
    return found


@pytest.mark.long
def test_a_trial_whose_process_is_killed_goes_on_from_its_last_epoch(
    tiny_recipe: Any, tmp_path: Path
) -> None:
    killed: list[int] = []
    epochs: list[float] = []

    def on_result(trial: str, metrics: Mapping[str, Any]) -> None:
        epochs.append(metrics["epoch"])
        if metrics["epoch"] == 2 and not killed:
            killed.extend(trial_pids())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    recipe = tiny_recipe(epochs=6, **QUICK)
    record = sweep(recipe.resolved(), space(samples=1), tmp_path / "sweep", watch=Watch(on_result=on_result))
    assert killed
    assert (record.num_finished, record.num_failed) == (1, 0)
    assert epochs[-1] == 6
    # It did not begin again: an epoch that was saved before the kill is not reported a second time.
    assert epochs.count(1.0) == 1
    lines = (tmp_path / "sweep/trials/000/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 7))


@pytest.mark.long
def test_trials_from_one_start_share_a_probe_that_is_evaluated_once(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, pretrain={"epochs": 1}, objective__alpha=0.0, epochs=1)
    result = sweep_and_rank(recipe, space(samples=2, finalists=2), tmp_path / "sweep")
    folder = SweepFolder(result.path)
    (probe,) = folder.probe.iterdir()
    expected = read_state(probe / "checkpoint").best_metrics
    for trial in ("000", "001"):
        assert read_state(folder.trial(trial).checkpoint).probe_metrics == expected
        assert not folder.trial(trial).probe.exists()
    assert [path.parent for path in folder.probe.rglob("record.json")] == [probe]
    entries = result.leaderboard.boards[0].entries
    assert [entry.name for entry in entries if entry.baseline == "linear probe"] == ["tiny-probe"]
    assert {"tiny-000", "tiny-001"} < {entry.name for entry in entries}


def test_failing_trials_are_recorded_and_the_others_go_on(tiny_recipe: Any, tmp_path: Path) -> None:
    values = [{"lr": 0.01}, {"lr": 10.0, "weight_decay": 1.0}, {"lr": 0.02}]
    searched = space(search="grid", parameters={"optim": {"choice": values}}, finalists=3)
    record = sweep(tiny_recipe(**QUICK, data__batch_size=16).resolved(), searched, tmp_path / "sweep")
    rows = {row.trial: row for row in read_ledger(SweepFolder(tmp_path / "sweep").ledger)}
    assert [rows[name].status for name in ("000", "001", "002")] == ["finished", "failed", "finished"]
    assert rows["001"].has_diverged
    assert re.search(r"the (loss|weights) became nan in epoch 1, .*step \d+; ", rows["001"].error or "")
    assert rows["001"].metrics == {}
    assert set(record.finalists) == {"000", "002"}
    assert (record.num_failed, record.is_complete) == (1, True)
    # A finished sweep has nothing left to do.
    assert resume(tmp_path / "sweep") == record


def test_a_sweep_of_failures_says_why(tiny_recipe: Any, tmp_path: Path) -> None:
    bad = {"parameters": {"optim": {"choice": [{"lr": 10.0, "weight_decay": 1.0}]}}}
    with pytest.raises(
        TrainingError,
        match=r"no trial finished \(all 1 diverged; in trial 000 the .* became nan.*lower optim.lr",
    ):
        sweep(tiny_recipe(**QUICK, data__batch_size=16).resolved(), space(**bad), tmp_path / "sweep")
    assert read_ledger(SweepFolder(tmp_path / "sweep").ledger)[0].status == "failed"


@pytest.mark.long
def test_time_runs_out_and_the_rest_is_resumed(tiny_recipe: Any, tmp_path: Path) -> None:
    out, document = SweepFolder(tmp_path / "sweep"), tiny_recipe(epochs=3, **QUICK).resolved()
    assert sweep(document, space(samples=1), out.path).is_complete
    late = resume(out.path, {"samples": 200, "max_minutes": 0.02})
    assert not late.is_complete
    first = read_ledger(out.ledger)
    assert 1 <= len(first) < 200
    assert {row.status for row in first} == {"finished"}, "a trial that time stopped has no row"
    assert read_record(out.trial(late.finalists[0]).record).status == "ok"

    more = len(out.points.read_text().splitlines()) + 1
    again = resume(out.path, {"samples": more, "max_minutes": 60})
    later = read_ledger(out.ledger)
    assert again.is_complete
    assert later[: len(first)] == first
    assert sorted(row.trial for row in later) == [f"{number:03d}" for number in range(more)]


@pytest.mark.long
def test_asha_spares_the_baseline_and_says_whom_it_stopped(tiny_recipe: Any, tmp_path: Path) -> None:
    searched = space(
        samples=8,
        baseline={"objective.adversary": None},
        scheduler={"kind": "asha", "grace_epochs": 1, "reduction_factor": 4},
        parameters={"optim.lr": {"choice": [0.2, 0.1, 0.05, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4]}},
    )
    lock = threading.RLock()  # as a live table has one; it cannot be pickled
    watch = Watch(on_trial=lambda row, total: lock.acquire() and lock.release())
    document = tiny_recipe(epochs=4, **QUICK).resolved()
    # In a notebook's or a server's thread there are no signals to catch.
    thread = threading.Thread(target=lambda: sweep(document, searched, tmp_path / "sweep", watch=watch))
    thread.start()
    thread.join()
    rows = {row.trial: row for row in read_ledger(SweepFolder(tmp_path / "sweep").ledger)}
    assert rows[BASELINE].status == "finished"
    assert rows[BASELINE].metrics["epoch"] == 4
    stopped = [row for row in rows.values() if row.status == "stopped"]
    assert stopped
    for row in stopped:
        assert row.reason == f"asha after epoch {row.metrics['epoch']:.0f}"
        assert row.metrics["epoch"] < 4


@pytest.mark.long
def test_a_population_hands_weights_and_settings_on(tiny_recipe: Any, tmp_path: Path) -> None:
    searched = space(
        samples=4,
        baseline={"objective.adversary": None},
        scheduler={"kind": "pbt", "every_epochs": 1, "quantile": 0.5},
        parameters={
            "objective.alpha": {"loguniform": [0.01, 1.0]},
            **EPS,
            "optim.lr": {"choice": [0.1, 1e-5]},
        },
        finalists=4,
    )
    out = SweepFolder(tmp_path / "sweep")
    record = sweep(tiny_recipe(epochs=4, **QUICK).resolved(), searched, out.path)
    rows = {row.trial: row for row in read_ledger(out.ledger)}
    assert {row.status for row in rows.values()} == {"finished"}
    assert not out.trial(BASELINE).lineage.exists()
    changed = [name for name in rows if out.trial(name).lineage.exists()]
    assert changed
    for name in changed:
        run = out.trial(name)
        last = json.loads(run.lineage.read_text().splitlines()[-1])
        recipe = load_recipe(run.recipe)
        assert recipe.objective.alpha == pytest.approx(last["overrides"]["objective.alpha"])
        assert 0.01 <= recipe.objective.alpha <= 1.0
        assert 0.02 <= recipe.objective.adversary.eps <= 0.1  # type: ignore[union-attr]
        assert recipe.name == f"tiny-{name}"
        assert last["from"] in rows
        assert "lineage.jsonl" in (rows[name].reason or "")
        lines = [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()]
        assert lines == list(range(1, 5))
    finalist = next(name for name in record.finalists if name in changed)
    evaluated = read_record(out.trial(finalist).record)
    assert evaluated.status == "ok"
    assert evaluated.files["lineage"].path == "lineage.jsonl"
    assert evaluated.recipe_hash == load_recipe(out.trial(finalist).recipe).hash


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ({"num_workers": 0, "cpus_per_worker": 64}, "a trial needs 64 CPUs, the cluster has"),
        ({"num_workers": 99}, "a trial needs 99 CPUs"),
        ({"use_gpu": True}, "a trial needs 1 GPUs, the cluster has 0"),
    ],
)
def test_trials_that_cannot_be_placed_are_refused(
    workers: dict[str, Any], message: str, tiny_recipe: Any, tmp_path: Path
) -> None:
    recipe = tiny_recipe(workers=workers, data__batch_size=256)
    with pytest.raises(SearchSpaceError, match=message):
        sweep(recipe.resolved(), space(samples=2), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_only_a_sweep_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no sweep \(recipe.yaml and space.yaml are needed\)"):
        resume(tmp_path)
