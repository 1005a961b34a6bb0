"""Training, sweeps and cross-validations in S3, where workers and driver share no disk.

The cluster's processes have another cache than the driver, so that nothing but the storage is between them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.crossval import CrossvalSpec, crossval
from temper.cluster.launch import launch
from temper.cluster.sweep import resume, sweep
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


def test_a_sweep_in_s3_is_resumed_on_another_machine(
    ray_cluster: None, tiny_recipe: Any, bucket: str, machine: Machine
) -> None:
    out = f"{bucket}/team/sweep"
    space = SearchSpace.model_validate(
        {
            "search": "random",
            "samples": 2,
            "metric": "val/target/robust_acc",
            "scheduler": None,
            "finalists": 1,
            "parameters": {"objective.alpha": {"uniform": [0.0, 1.0]}},
        }
    )
    first = sweep(tiny_recipe(**FAST).resolved(), space, Path(out))
    assert (first.num_finished, first.is_complete) == (2, True)
    before = lines(f"{out}/ledger.jsonl")
    assert len(before) == len(lines(f"{out}/points.jsonl")) == 2
    written = names(out)
    assert {f"trials/{row['trial']}/last/state.json" for row in before} <= written
    assert f"trials/{first.best}/record.json" in written
    assert not [name for name in written if ".ray" in name or ".lock" in name]

    machine("another")
    second = resume(Path(out), {"samples": 3})
    after = lines(f"{out}/ledger.jsonl")
    assert after[:2] == before
    assert (len(after), second.num_finished) == (3, 3)
    assert json.loads(read_bytes(Address.parse(f"{out}/sweep.json")) or b"")["num_trials"] == 3


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
