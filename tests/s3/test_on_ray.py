"""Training, sweeps and cross-validations in S3, where workers and driver share no disk.

The cluster's processes have another cache than the driver, so that nothing but the storage is between them.
"""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.crossval import CrossvalSpec, crossval
from temper.cluster.launch import launch
from temper.cluster.sweep import Watch, resume, sweep
from temper.errors import CheckpointError
from temper.search import SearchSpace
from temper.storage import Address, list_objects, read_bytes
from temper.storage.objects import delete
from temper.training import read_state

Machine = Callable[[str], Path]
FAST = {
    "epochs": 1,
    "pretrain": None,
    "evaluation.max_images": 8,
    "data.shots_per_class": 12,
    "validation.max_images": 16,
    "tracking.wandb": False,
    "tracking.tensorboard": False,
}


def names(place: str) -> set[str]:
    return {one.name for one in list_objects(Address.parse(place)) if not one.name.endswith(".writer")}


def lines(place: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (read_bytes(Address.parse(place)) or b"").splitlines()]


@pytest.mark.long
def test_workers_elsewhere_train_a_run_in_s3(
    ray_cluster: None, tiny_recipe: Any, bucket: str, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**FAST)
    launch(recipe, tmp_path / "here")
    expected = (tmp_path / "here/checkpoint/model.safetensors").read_bytes()
    told: list[int] = []
    remote = recipe.model_copy(update={"workers": recipe.workers.model_copy(update={"num_workers": 1})})
    state = launch(remote, Path(f"{bucket}/run"), on_epoch=lambda metrics: told.append(int(metrics["epoch"])))
    assert state.is_settled
    assert told == [1]
    assert names(f"{bucket}/run") >= {
        "recipe.yaml",
        "metrics.jsonl",
        "last/state.json",
        "checkpoint/state.json",
    }
    model = read_bytes(Address.parse(f"{bucket}/run/checkpoint/model.safetensors"))
    assert model is not None
    assert len(model) == len(expected)
    best = read_state(tmp_path / "here/checkpoint").best_metrics
    assert state.best_metrics == pytest.approx(best, abs=1e-3)


SPACE = {
    "search": "random",
    "samples": 2,
    "metric": "val/target/robust_acc",
    "scheduler": None,
    "finalists": 1,
    "parameters": {"objective.alpha": {"uniform": [0.0, 1.0]}},
}


def sweep_and_die(document: dict[str, Any], out: str, address: str) -> None:
    """A driver that dies as soon as the first trial has ended."""
    os.environ["RAY_ADDRESS"] = address
    watch = Watch(on_trial=lambda _row, _total: os._exit(9))
    sweep(document, SearchSpace.model_validate(SPACE), Path(out), watch=watch)


@pytest.mark.long
def test_a_sweep_in_s3_whose_head_dies_is_resumed_on_another_machine(
    ray_cluster: None, tiny_recipe: Any, bucket: str, machine: Machine
) -> None:
    import ray

    out, address = f"{bucket}/team/sweep", ray.get_runtime_context().gcs_address
    document = tiny_recipe(**FAST).resolved()
    driver = multiprocessing.get_context("spawn").Process(target=sweep_and_die, args=(document, out, address))
    driver.start()
    driver.join(240)
    assert driver.exitcode == 9
    before = lines(f"{out}/ledger.jsonl")
    assert len(before) <= 1
    points = lines(f"{out}/points.jsonl")
    assert points

    machine("another")
    record = resume(Path(out))
    after = lines(f"{out}/ledger.jsonl")
    assert after[: len(before)] == before
    assert sorted(row["trial"] for row in after) == ["000", "001"]
    assert lines(f"{out}/points.jsonl")[: len(points)] == points
    assert (record.num_finished, record.is_complete) == (2, True)
    for row in after:
        assert [one["epoch"] for one in lines(f"{out}/trials/{row['trial']}/metrics.jsonl")] == [1]
    written = names(out)
    assert {f"trials/{row['trial']}/last/state.json" for row in after} <= written
    assert {f"trials/{record.best}/record.json", "sweep.json", "space.yaml", "recipe.yaml"} <= written
    assert not [name for name in written if ".ray" in name or ".lock" in name]


@pytest.mark.long
def test_a_cross_validation_in_s3_goes_on_where_it_was(
    ray_cluster: None, tiny_recipe: Any, bucket: str, machine: Machine
) -> None:
    out, spec = f"{bucket}/crossval", CrossvalSpec(folds=2, seeds=1)
    document = tiny_recipe(**FAST).resolved()
    first = crossval(document, spec, Path(out))
    runs = sorted(name for name in names(out) if name.endswith("/record.json"))
    assert len(runs) == 2
    assert {"crossval.json", "crossval.md", "crossval.png", "recipe.yaml"} <= names(out)
    with pytest.raises(CheckpointError, match="this cross-validation is finished"):
        crossval(document, spec, Path(out))
    kept = read_bytes(Address.parse(out) / runs[0])
    for name in ("crossval.json", runs[1]):
        delete(Address.parse(out) / name)
    machine("another")
    again = crossval(document, spec, Path(out))
    assert read_bytes(Address.parse(out) / runs[0]) == kept
    assert [run.robust_acc for run in again.runs] == [run.robust_acc for run in first.runs]
