"""The same work on a real Ray cluster: reading, training on workers, sweeping."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
import torch
from safetensors.torch import load_file

from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.launch import launch
from temper.cluster.resources import check_room
from temper.cluster.streaming import STEP_S, StreamedBatches, load_images_with_ray
from temper.cluster.sweep import sweep
from temper.data import ImageView, ShardSet, load_images
from temper.errors import CheckpointError, ModelError, SearchSpaceError, UsageError
from temper.recipe import WorkersSpec
from temper.records import RunFolder, SweepFolder, read_ledger
from temper.run.open_data import open_data
from temper.search import SearchSpace
from temper.tracking import JsonlTracker
from temper.training import DeferredValidation, Worker, read_samples, train

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_ray_data_decodes_what_we_decode(digits: dict[str, Path]) -> None:
    shards = ShardSet.open(digits["target"])
    ours, theirs = load_images(shards, "val", ImageView(8)), load_images_with_ray(shards, "val", ImageView(8))
    assert np.array_equal(ours.images, theirs.images)
    assert np.array_equal(ours.labels, theirs.labels)
    assert np.array_equal(ours.rows, theirs.rows)


def test_streamed_batches_hold_every_image_once_over_two_ranks(digits: dict[str, Path]) -> None:
    shards = ShardSet.open(digits["target"])
    resident = load_images(shards, "train", ImageView(8))
    pixels = dict(zip(resident.rows.tolist(), resident.images, strict=True))
    seen: list[int] = []
    for rank in (0, 1):
        batches = StreamedBatches(shards, view=ImageView(8), batch_size=64, seed=0, rank=rank, world_size=2)
        epoch = list(batches.epoch(0))
        assert len(epoch) == batches.num_batches
        for batch in epoch:
            seen += batch.rows.tolist()
            for row, image in zip(batch.rows.tolist(), batch.images.numpy(), strict=True):
                assert np.array_equal(image, pixels[row])
        batches.close()
    assert len(seen) == len(set(seen))
    assert len(pixels) - len(seen) <= 3


def test_a_stream_shows_every_image_once_to_whoever_solves_a_head(digits: dict[str, Path]) -> None:
    """Over ranks of which the last has nothing to read, and of a subset the same images for any number."""
    shards = ShardSet.open(digits["target"])
    resident = load_images(shards, "train", ImageView(8))
    pixels = dict(zip(resident.rows.tolist(), resident.images, strict=True))

    def rows(world_size: int, limit: int) -> list[int]:
        seen: list[int] = []
        for rank in range(world_size):
            batches = StreamedBatches(
                shards, view=ImageView(8), batch_size=64, seed=0, rank=rank, world_size=world_size
            )
            for batch in batches.once(limit, 0):
                seen += batch.rows.tolist()
                assert all(
                    np.array_equal(image, pixels[row])
                    for row, image in zip(batch.rows.tolist(), batch.images.numpy(), strict=True)
                )
        return sorted(seen)

    assert rows(3, 10_000) == sorted(pixels)
    assert rows(2, 50) == rows(1, 50)
    assert len(rows(1, 50)) == 50


DECODE = """
import pickle, sys
functions = pickle.load(open(sys.argv[1], "rb"))
print([len(function(item)["images"]) for function, item in functions])
assert not {"torch", "torchvision"} & set(sys.modules), "torch was imported"
"""


def test_what_ray_s_processes_decode_with_imports_no_torch(
    digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions: list[Any] = []
    mapped = ray.data.Dataset.map

    def recorded(dataset: Any, function: Any, **options: Any) -> Any:
        functions.append(function)
        return mapped(dataset, function, **options)

    monkeypatch.setattr(ray.data.Dataset, "map", recorded)
    shards = ShardSet.open(digits["target"])
    load_images_with_ray(shards, "val", ImageView(8))
    batches = StreamedBatches(shards, view=ImageView(8), batch_size=64, seed=0)
    next(batches.epoch(0))
    batches.close()
    calls = list(zip(functions, [{"id": 0}, {"position": 0}], strict=True))
    (tmp_path / "calls").write_bytes(ray.cloudpickle.dumps(calls))
    done = subprocess.run(
        [sys.executable, "-c", DECODE, tmp_path / "calls"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert len(numbers) == 2
    assert min(numbers) > 0


class Counted:
    """Counts the steps of Ray Data's executor."""

    num_steps = 0

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None

    def on_execution_step(self, executor: Any) -> None:
        Counted.num_steps += 1


def test_a_stream_that_has_to_wait_leaves_the_processor_to_training(digits: dict[str, Path]) -> None:
    """Ray's loop turns hundreds of times a second where results are there that it may not take."""
    context = ray.data.DataContext.get_current().copy()
    context.custom_execution_callback_classes = [Counted]
    context.execution_options.resource_limits = ray.data.ExecutionResources(object_store_memory=1e5)
    batches = StreamedBatches(ShardSet.open(digits["target"]), view=ImageView(8), batch_size=64, seed=0)
    with ray.data.DataContext.current(context):
        next(batches.epoch(0))
        before = Counted.num_steps
        time.sleep(2)
        num_steps = Counted.num_steps - before
    batches.close()
    assert before > 0
    assert num_steps <= 2 / STEP_S + 2


DIVERGING = {"lr": 10.0, "weight_decay": 1.0}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint/model.safetensors")


@pytest.mark.long
def test_a_worker_of_ray_train_gives_the_run_of_this_process_even_if_it_is_killed(
    tiny_recipe: Any, tmp_path: Path, pids_of: Any
) -> None:
    killed: list[int] = []
    seen: list[float] = []

    def kill_once(metrics: Any) -> None:
        seen.append(metrics["epoch"])
        if not killed:
            killed.extend(pids_of("RayTrainWorker"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    launch(tiny_recipe(epochs=12), tmp_path / "here")
    recipe = tiny_recipe(epochs=12, workers={"num_workers": 1})
    state = launch(recipe, tmp_path / "worker", on_epoch=kill_once)
    assert len(killed) == 1
    assert state.is_finished
    assert len(list((tmp_path / "worker/.ray").iterdir())) == 2
    lines = (tmp_path / "worker/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 13))
    assert sorted(set(seen)) == list(range(1, 13))
    here, worker = weights(tmp_path / "here"), weights(tmp_path / "worker")
    assert all(torch.allclose(here[name], worker[name], atol=1e-4) for name in here)


LATER = {"workers": {"num_workers": 1}, "epochs": 3, "optim__ema_decay": 0.9}


@pytest.mark.long
def test_validation_beside_training_chooses_the_same_epoch(tiny_recipe: Any, tmp_path: Path) -> None:
    now = launch(tiny_recipe(**LATER), tmp_path / "now")
    seen: list[Any] = []
    recipe = tiny_recipe(**LATER, validation__is_asynchronous=True)
    later = launch(recipe, tmp_path / "later", on_epoch=seen.append)
    assert (later.is_settled, later.best_epoch, later.since_best) == (True, now.best_epoch, now.since_best)
    assert later.best_metrics == now.best_metrics
    assert "val/target/robust_acc" in now.best_metrics
    one, two = weights(tmp_path / "now"), weights(tmp_path / "later")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows: dict[int, dict[str, float]] = {}
    for line in (tmp_path / "later/metrics.jsonl").read_text().splitlines():
        rows.setdefault(json.loads(line)["epoch"], {}).update(json.loads(line))
    synchronous = map(json.loads, (tmp_path / "now/metrics.jsonl").read_text().splitlines())
    different = {"cost/train_s": None}
    assert [row | different for row in rows.values()] == [row | different for row in synchronous]
    assert sorted(row["epoch"] for row in seen) == [1, 1, 2, 2, 3, 3]
    # Ray Train itself has validated: nothing was left for afterwards.
    snapshot = next((tmp_path / "later/.ray/train-0").glob("checkpoint_manager_snapshot.json"))
    assert len(json.loads(snapshot.read_text())["validated_checkpoint_dir_names"]) == 3


def test_what_waits_is_validated_though_nothing_is_left_to_train(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe, run = tiny_recipe(**LATER, validation__is_asynchronous=True), RunFolder(tmp_path / "run")
    data = open_data(recipe)
    feed = build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))
    validator = DeferredValidation(run, grace_s=-1e9)
    state = train(recipe, run, feed, worker=Worker(), tracker=JsonlTracker(run.metrics), validator=validator)
    assert [one.epoch for one in state.waiting] == [0, 1, 2]
    state = launch(recipe, run.path)
    assert (state.is_settled, state.waiting) == (True, [])
    assert state.best_metrics["val/target/robust_acc"] > 0
    assert not (run.path / ".ray").exists()


@pytest.mark.long
def test_two_workers_streamed_through_every_phase(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        workers={"num_workers": 2},
        data__resident=False,
        data__batch_size=32,
        schedule={"kind": "gradual", "epochs_per_group": 1},
    )
    state = launch(recipe, tmp_path / "run")
    assert state.is_finished
    assert state.best_metrics["val/target/clean_acc"] > 0.2


@pytest.mark.long
def test_workers_and_streams_change_nothing_but_rounding(tiny_recipe: Any, tmp_path: Path) -> None:
    """The tiny recipe, BatchNorm and all."""
    metrics: dict[tuple[int, bool], list[dict[str, float]]] = {}
    batches: dict[tuple[int, bool], dict[tuple[int, int], list[int]]] = {}
    for which in [(num_workers, resident) for num_workers in (0, 2) for resident in (True, False)]:
        recipe = tiny_recipe(
            workers={"num_workers": which[0]},
            data__resident=which[1],
            optim={"lr": 0.02, "max_grad_norm": 1.0},
            tracking={"wandb": False, "samples": True},
        )
        run = RunFolder(tmp_path / f"{which}")
        launch(recipe, run.path)
        metrics[which] = [
            json.loads(line) | {"cost/train_s": 0.0} for line in run.metrics.read_text().splitlines()
        ]
        batches[which] = {}
        for row in read_samples(run):
            batches[which].setdefault((row["epoch"], row["step"]), []).extend(row["target"] + row["source"])
    expected = metrics[0, True]
    assert expected[1]["train/loss"] < expected[0]["train/loss"]
    for which, rows in metrics.items():
        for one, other in zip(expected, rows, strict=True):
            assert other.keys() == one.keys()
            for name, value in one.items():  # of 64 validation images a few may go either way
                is_loss = name.startswith("train/")
                assert other[name] == pytest.approx(value, rel=1e-2, abs=0 if is_loss else 0.05), which
        assert {key: sorted(used) for key, used in batches[which].items()} == {
            key: sorted(used) for key, used in batches[0, True].items()
        }


def test_more_workers_than_fit_are_refused_and_not_waited_for(
    tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    few = int(ray.cluster_resources()["CPU"])
    recipe = tiny_recipe(workers__num_workers=2, workers__cpus_per_worker=few)
    problem = f"workers: CPUs needed: 2 x {few}, available: {few}; lower workers.num_workers"
    with pytest.raises(UsageError, match=problem):
        launch(recipe, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").last.exists()
    with pytest.raises(UsageError, match=r"GPUs needed: 1 x 1, available: 0; lower .*use_gpu: false"):
        check_room(WorkersSpec(num_workers=1, use_gpu=True))
    check_room(WorkersSpec(num_workers=few))
    check_room(WorkersSpec(num_workers=(1, 50 * few)))  # which makes do with fewer
    check_room(WorkersSpec(num_workers=0, cpus_per_worker=256))  # which needs no room
    monkeypatch.setenv("TEMPER_CLUSTER_MAX", f"CPU={2 * few}")
    check_room(recipe.workers)
    monkeypatch.delenv("TEMPER_CLUSTER_MAX")
    assert not caplog.messages
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check_room(recipe.workers)
    (said,) = caplog.messages
    assert "waiting until the cluster has grown" in said


def test_weights_of_another_backbone_are_refused_before_workers_start(
    tiny_recipe: Any, tmp_path: Path
) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    recipe = tiny_recipe(workers={"num_workers": 1}, model__weights=str(tmp_path / "w.pth"))
    with pytest.raises(ModelError, match=r"weights of another backbone; missing: .*unexpected: x"):
        launch(recipe, tmp_path / "run")
    assert not (tmp_path / "run/.ray").exists()


@pytest.mark.long
def test_trials_nested_in_ray_train_and_a_trial_that_fails(tiny_recipe: Any, tmp_path: Path) -> None:
    """Each of two workers, on two CPUs: started at once they would hold one CPU each for ever."""
    space = SearchSpace.model_validate(
        {"search": "grid", "parameters": {"optim": {"choice": [{"lr": 0.01}, DIVERGING]}}}
    )
    out = SweepFolder(tmp_path / "sweep")
    sweep(tiny_recipe(workers={"num_workers": 2}, data__batch_size=16).resolved(), space, out.path)
    rows = {row.trial: row for row in read_ledger(out.ledger)}
    assert rows["000"].status == "finished"
    assert rows["000"].metrics["best/val/target/robust_acc"] > 0
    assert rows["001"].status == "failed"
    assert rows["001"].has_diverged
    tries = [folder.name for folder in (out.trial("001").path / ".ray").iterdir()]
    assert tries == ["train-0"], "an error of ours would only come back"
    with pytest.raises(CheckpointError, match="already holds a sweep"):
        sweep(tiny_recipe().resolved(), space, out.path)


CLEAN = "val/target/clean_acc"
SPACE = {"parameters": {"objective.adversary.eps": {"uniform": [0.05, 0.1]}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"objctive.alpha": {"choice": [1]}}}, r"space: trial 0: no field 'objctive'"),
        ({"parameters": {"objective.adversary.eps": {"choice": [8]}}}, r"trial 0: .*did you mean 8/255"),
        ({"parameters": {"data.batch_size": {"choice": [8, 16]}}}, "a sweep cannot vary 'data'"),
        ({"parameters": {"validation": {"choice": [{"steps": 0, "metric": CLEAN}]}}}, "0 steps measure no"),
    ],
)
def test_every_point_is_checked_before_the_first_trial(
    change: dict[str, Any], message: str, tiny_recipe: Any, tmp_path: Path
) -> None:
    space = SearchSpace.model_validate({**SPACE, **change})
    with pytest.raises(SearchSpaceError, match=message):
        sweep(tiny_recipe().resolved(), space, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
