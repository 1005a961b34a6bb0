"""Validation that answers later chooses what validation in place chooses, whatever comes between."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from temper.cluster.claim import claim
from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.cluster.sweep import sweep
from temper.errors import CheckpointError, RecipeError, SearchSpaceError
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.run.open_data import open_data
from temper.search import SearchSpace
from temper.tracking import JsonlTracker
from temper.training import (
    DeferredValidation,
    TrainData,
    TrainState,
    Worker,
    finish_validation,
    read_state,
    train,
    validate_waiting,
)
from temper.training.deferred_validation import weights_of
from temper.training.state import Waiting

LATER = {"workers": {"num_workers": 1, "use_gpu": False}, "validation__is_asynchronous": True}
METHODS: dict[str, dict[str, Any]] = {
    "plain, every second epoch": {"validation__every_epochs": 2},
    "average": {"optim__ema_decay": 0.9, "optim__kind": "adamw", "optim__lr": 0.003},
    "twins, gradual": {"schedule": {"kind": "gradual", "epochs_per_group": 1, "batch_norm": "twin"}},
    "adalora": {
        "data__batch_size": 20, "data__shots_per_class": 4, "validation__max_images": 16,
        "model__backbone": "small_vit",
        "model__adapter": {"kind": "adalora", "init_rank": 4, "target_rank": 2},
    },
}  # fmt: skip


class StoppedError(Exception):
    pass


def feed_of(recipe: Recipe) -> TrainData:
    data = open_data(recipe)
    return build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))


def train_later(recipe: Recipe, run: RunFolder, feed: TrainData, answer_after: tuple[int, ...]) -> TrainState:
    """Trains, and answers for all that waits after the epochs ``answer_after`` (from 1) only."""

    def report(metrics: Any) -> None:
        if metrics["epoch"] in answer_after:
            validate_waiting(recipe, run, read_state(run.last), feed.val, "cpu")

    start = read_state(run.last).next_epoch if run.last.exists() else 0
    tracker = JsonlTracker(run.metrics, start)
    validator = DeferredValidation(run, grace_s=-1e9)
    return train(recipe, run, feed, worker=Worker("cpu", report), tracker=tracker, validator=validator)


def settle_all(recipe: Recipe, run: RunFolder, feed: TrainData) -> TrainState:
    state = read_state(run.last)
    validate_waiting(recipe, run, state, feed.val, "cpu")
    return finish_validation(recipe, run, state, JsonlTracker(run.metrics, state.num_epochs))


def rows_of(run: Path) -> dict[int, dict[str, float]]:
    """Epoch -> its metrics but for seconds, the later lines merged into the first."""
    rows: dict[int, dict[str, float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        row.pop("cost/train_s", None)
        assert not rows.get(row["epoch"], {}).keys() & (row.keys() - {"epoch", "first_epoch"})
        rows.setdefault(row["epoch"], {}).update(row)
    return rows


def assert_same_run(now: Path, later: Path) -> None:
    one, two = read_state(now / "checkpoint"), read_state(later / "checkpoint")
    kept = ("best_epoch", "best_metrics", "adapter_ranks", "since_best", "next_epoch", "waiting")
    assert {name: getattr(one, name) for name in kept} == {name: getattr(two, name) for name in kept}
    assert read_state(later / "last") == two
    assert rows_of(now) == rows_of(later)
    a, b = (load_file(run / "checkpoint/model.safetensors") for run in (now, later))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not (later / "waiting").exists()


@pytest.mark.parametrize("method", METHODS)
def test_answers_that_come_later_choose_the_same_epoch(tiny_recipe: Any, tmp_path: Path, method: str) -> None:
    changes = {"data__shots_per_class": 10, **METHODS[method], "epochs": 5}
    launch(tiny_recipe(**changes), tmp_path / "now")
    recipe, run = tiny_recipe(**changes, **LATER), RunFolder(tmp_path / "later")
    feed = feed_of(recipe)
    state = train_later(recipe, run, feed, answer_after=(3,))
    assert (state.is_finished, state.is_settled) == (True, False)
    assert [one.epoch for one in state.waiting][-1] == 4
    assert settle_all(recipe, run, feed).is_settled
    assert_same_run(tmp_path / "now", run.path)


def test_an_interrupted_run_loses_no_epoch_that_waits(tiny_recipe: Any, tmp_path: Path) -> None:
    changes = {"data__shots_per_class": 30, "epochs": 5, "optim__lr_schedule": "constant"}
    launch(tiny_recipe(**changes), tmp_path / "now")
    recipe, run = tiny_recipe(**changes, **LATER), RunFolder(tmp_path / "later")
    feed = feed_of(recipe)

    def stop_after_three(metrics: Any) -> None:
        if metrics["epoch"] == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, run, feed, worker=Worker("cpu", stop_after_three), tracker=JsonlTracker(run.metrics),
              validator=DeferredValidation(run))  # fmt: skip
    assert [one.epoch for one in read_state(run.last).waiting] == [0, 1, 2]
    train_later(recipe, run, feed, answer_after=(4,))
    claim(run, recipe)  # trained to the end, but not finished: one epoch is still to be looked at
    run.recipe.touch()
    with pytest.raises(CheckpointError, match="this run is unfinished"):
        evaluate_run(run.path)
    settle_all(recipe, run, feed)
    with pytest.raises(CheckpointError, match="this run is finished"):
        claim(run, recipe)
    assert_same_run(tmp_path / "now", run.path)


def test_answers_in_any_order_and_equal_ones(tiny_recipe: Any, tmp_path: Path) -> None:
    """The first of the best, even if it is heard of last; whoever crashes before the end repeats it all."""
    recipe, run = tiny_recipe(epochs=3, **LATER), RunFolder(tmp_path / "run")
    metric = recipe.selection_metric
    waiting = [Waiting(epoch=epoch, metrics={"train/loss": float(epoch)}) for epoch in range(3)]
    state = TrainState(recipe_hash="", classes={}, fingerprints={}, start_weights=None, num_epochs=3,
                       next_epoch=3, best_epoch=0, best_metrics={"train/loss": 0.0},
                       waiting=waiting)  # fmt: skip
    tracker = JsonlTracker(run.metrics)
    for epoch, answer, best in ((2, 0.5, 2), (0, 0.4, 2), (1, 0.5, 1)):
        run.waiting.mkdir(parents=True, exist_ok=True)
        weights_of(run, epoch).write_bytes(f"weights of {epoch}".encode())
        (run.waiting / f"epoch-{epoch:05d}.json").write_text(json.dumps({metric: answer}))
        state = finish_validation(recipe, run, state, tracker)
        assert (state.best_epoch, state.best_metrics[metric]) == (best, max(0.5, answer))
        assert state.best_metrics["train/loss"] == best
        assert (run.checkpoint / "model.safetensors").read_text() == f"weights of {best}"
    assert state.is_settled
    assert [row["epoch"] for row in map(json.loads, run.metrics.read_text().splitlines())] == [3, 1, 2]


def test_a_validation_that_fails_is_not_waited_for_and_can_be_repeated(
    tiny_recipe: Any, tmp_path: Path
) -> None:
    recipe, run = tiny_recipe(epochs=1, data__shots_per_class=10, **LATER), RunFolder(tmp_path / "run")
    feed = feed_of(recipe)
    state = train_later(recipe, run, feed, answer_after=())
    whole = weights_of(run, 0).read_bytes()
    weights_of(run, 0).write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match=r"epoch-00000.safetensors: not a checkpoint of this model"):
        validate_waiting(recipe, run, state, feed.val, "cpu")
    DeferredValidation(run).wait([0], limit_s=3600)
    assert not finish_validation(recipe, run, state, JsonlTracker(run.metrics, 1)).is_settled
    weights_of(run, 0).write_bytes(whole)
    assert settle_all(recipe, run, feed).is_settled


def test_what_cannot_be_meant_together(tiny_recipe: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is_asynchronous: true needs Ray Train workers.*num_workers"):
        tiny_recipe(validation__is_asynchronous=True)
    with pytest.raises(RecipeError, match=r"validation.patience needs results at once"):
        tiny_recipe(**LATER, validation__patience=2)
    recipe = tiny_recipe(**LATER)
    assert recipe.hash == tiny_recipe(workers=LATER["workers"]).hash
    space = {"parameters": {"objective.alpha": {"choice": [0.1]}}}
    with pytest.raises(SearchSpaceError, match=r"scheduler: asha compares trials after each epoch"):
        sweep(recipe.resolved(), SearchSpace.model_validate(space), tmp_path / "sweep")
