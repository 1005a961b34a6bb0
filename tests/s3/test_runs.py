"""Runs whose images, start, folder and record lie in S3: the same numbers as on a disk."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.evaluate import evaluate_external, evaluate_run
from temper.cluster.launch import launch
from temper.errors import CheckpointError, RecipeError, RecordError
from temper.leaderboard import build_leaderboard
from temper.recipe import Recipe
from temper.run.external_model import ExternalModelSpec
from temper.storage import Address, list_objects, read_bytes, upload
from temper.training import read_state
from temper.verification import verify_shallow

Machine = Callable[[str], Path]
FAST = {
    "epochs": 3,
    "pretrain": {"epochs": 1},
    "evaluation.max_images": 12,
    "data.shots_per_class": 12,
    "tracking.wandb": False,
}


@pytest.fixture
def remote(bucket: str, digits: dict[str, Path]) -> dict[str, Any]:
    """Overrides that point the tiny recipe at images in S3."""
    for task in ("target", "source"):
        for path in digits[task].iterdir():
            upload(path, Address.parse(f"{bucket}/shards/{task}") / path.name)
    return {f"data.{task}": f"{bucket}/shards/{task}" for task in ("target", "source")}


def die_after(document: dict[str, Any], out: str, num_epochs: int) -> None:
    """A process that gets as far as its last epoch but one, and dies without a word."""

    def on_epoch(metrics: Any) -> None:
        if int(metrics["epoch"]) == num_epochs and not metrics.get("pretrain"):
            from temper.addresses import local_path
            from temper.storage import publish

            publish(local_path(Path(out)))
            os._exit(9)

    launch(Recipe.model_validate(document), Path(out), on_epoch=on_epoch)


def test_a_run_in_s3_that_is_killed_goes_on_elsewhere_with_the_numbers_of_a_local_one(
    tiny_recipe: Any, remote: dict[str, Any], bucket: str, machine: Machine, tmp_path: Path
) -> None:
    here = tiny_recipe(**FAST)
    launch(here, tmp_path / "local")
    expected = evaluate_run(tmp_path / "local")

    there, out = tiny_recipe(**FAST, **remote), f"{bucket}/team/runs/a"
    process = multiprocessing.get_context("spawn").Process(target=die_after, args=(there.resolved(), out, 2))
    process.start()
    process.join(120)
    assert process.exitcode == 9
    machine("b")
    seen: list[int] = []
    state = launch(there, Path(out), on_epoch=lambda metrics: seen.append(int(metrics["epoch"])))
    assert seen == [3], "the first two epochs are not trained again, nor is the start"
    assert state.best_metrics == read_state(tmp_path / "local/checkpoint").best_metrics
    machine("c")
    record = evaluate_run(Path(out))
    assert (
        read_bytes(Address.parse(out) / "checkpoint/model.safetensors")
        == (tmp_path / "local/checkpoint/model.safetensors").read_bytes()
    )
    for name in ("clean_acc", "robust_acc", "source_acc", "source_retention", "per_class", "promises"):
        assert getattr(record, name) == getattr(expected, name), name
    names = {one.name for one in list_objects(Address.parse(out))}
    assert {"recipe.yaml", "metrics.jsonl", "record.json", "outcomes.parquet", "figure.png"} <= names
    assert not [name for name in names if name.startswith("evaluation/") or ".ray" in name]
    rows = (read_bytes(Address.parse(out) / "metrics.jsonl") or b"").splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3]
    assert (
        f"target: {bucket}/shards/target" in (read_bytes(Address.parse(out) / "recipe.yaml") or b"").decode()
    )
    with pytest.raises(RecordError, match="already evaluated"):
        evaluate_run(Path(out))
    with pytest.raises(CheckpointError, match="this run is finished"):
        launch(there, Path(out))

    board = build_leaderboard([Path(f"{bucket}/team/runs")], tmp_path / "board")
    assert [entry.robust_acc for entry in board.boards[0].entries] == [expected.robust_acc.value]
    machine("d")
    assert verify_shallow(Path(f"{out}/record.json")).failed == []
    elsewhere = evaluate_run(Path(out), out=tmp_path / "elsewhere")
    assert elsewhere.robust_acc == expected.robust_acc
    assert elsewhere.files["checkpoint"].path == f"{out}/checkpoint/model.safetensors"
    assert verify_shallow(tmp_path / "elsewhere").failed == []


def test_a_run_in_s3_starts_another_one(
    tiny_recipe: Any, evaluated_run: Path, bucket: str, machine: Machine, tmp_path: Path
) -> None:
    from temper.run.open_data import open_data
    from temper.run.start import build_start

    place = Address.parse(f"{bucket}/start")
    for name in ("recipe.yaml", "record.json", "checkpoint/model.safetensors", "checkpoint/state.json"):
        upload(evaluated_run / name, place / name)
    recipe = tiny_recipe(pretrain=None)
    classes = open_data(recipe).classes
    expected = build_start(recipe, classes, str(evaluated_run)).state_dict()
    for number, weights in enumerate((str(place), f"{place}/record.json")):
        machine(f"start-{number}")
        found = build_start(recipe, classes, weights).state_dict()
        assert all(bool((found[name] == expected[name]).all()) for name in expected), weights


def test_nothing_there_is_one_clear_line_and_leaves_nothing(bucket: str) -> None:
    with pytest.raises(CheckpointError, match="no run here"):
        evaluate_run(Path(f"{bucket}/nothing"))
    assert list_objects(Address.parse(bucket)) == []


def test_a_model_that_cannot_be_opened_takes_no_folder_from_whoever_writes_there(
    bucket: str, digits: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "zoo.py").write_text("from torch import nn\n")
    document = {"name": "zoo", "shards": digits["target"], "image_size": 8, "threat": {"eps": 0.1}}
    spec = ExternalModelSpec.model_validate({**document, "model": f"{tmp_path / 'zoo.py'}:nosuch"})
    with pytest.raises(RecipeError, match="has no function 'nosuch'"):
        evaluate_external(spec, Path(f"{bucket}/zoo"))
    assert not list_objects(Address.parse(f"{bucket}/zoo"))
