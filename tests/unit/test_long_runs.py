"""What happens over epochs: averages, guards, early stops, and going on after an interruption."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from temper.batches import Batch, ResidentBatches
from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.launch import launch
from temper.hardening import Guard
from temper.recipe import CheckpointSpec, Recipe
from temper.records import RunFolder
from temper.run.open_data import open_data
from temper.tracking import JsonlTracker
from temper.training import TrainState, Worker, read_state, train
from temper.training.averaging import EMA

GRADUAL = {"kind": "gradual", "epochs_per_group": 1}


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


class StoppedError(Exception):
    pass


METHODS: dict[str, dict[str, Any]] = {
    "full": {"schedule": {"kind": "full"}, "data__shots_per_class": None, "data__batch_size": 96},
    "gradual": {"data__shots_per_class": None, "data__batch_size": 96},
    "ema": {"optim__ema_decay": 0.9, "optim__kind": "adamw", "optim__lr": 0.003},
    "free": {"objective__adversary": {"kind": "free", "eps": 0.1, "replays": 2}},
    "fast": {
        "objective__adversary": {"kind": "fast", "eps": 0.1, "guard": {"max_drop": 0.01, "action": "return"}},
    },
    "trades with awp": {"objective__adversary": {"kind": "trades", "eps": 0.1, "steps": 2, "awp": {}}},
    "twins": {"schedule": {"kind": "twins"}},
    "lp_ft": {"schedule": {"kind": "lp_ft"}},
    "mixing, balanced": {"data__mixing": {}, "data__sampling": "balanced"},
    "lora": {"model__adapter": {"kind": "lora", "rank": 2}},
    "adalora": {  # a transformer is dear: as many steps as the others, on fewer images
        "data__shots_per_class": 10,
        "data__batch_size": 16,
        "validation__max_images": 16,
        "model__backbone": "small_vit",
        "model__adapter": {"kind": "adalora", "init_rank": 4, "target_rank": 2},
    },
}
ALWAYS = ("full", "gradual", "trades with awp", "lora")
"""The others run where what makes a run's numbers has changed (`tests/changed.py`)."""


class Failing(ResidentBatches):
    """Batches whose storage fails at one of them."""

    def __init__(self, batches: ResidentBatches, epoch: int, number: int) -> None:
        vars(self).update(vars(batches))
        self._where = (epoch, number)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, first), first):
            if (epoch, number) == self._where:
                raise StoppedError
            yield batch


def train_until(recipe: Recipe, run: RunFolder, epoch: int, number: int) -> TrainState:
    """Train up to a batch that cannot be read, and tell where ``run`` then stands."""
    data = open_data(recipe)
    feed = build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))
    assert isinstance(feed.target, ResidentBatches)
    failing = replace(feed, target=Failing(feed.target, epoch, number))
    with pytest.raises(StoppedError):
        train(recipe, run, failing, worker=Worker(), tracker=JsonlTracker(run.metrics))
    return read_state(run.last)


@pytest.mark.parametrize(
    "method",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.long) for name in METHODS],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(tiny_recipe: Any, tmp_path: Path, method: str) -> None:
    """It is interrupted within an epoch, and then between two."""
    recipe = tiny_recipe(
        **{"schedule": GRADUAL, "data__shots_per_class": 30, "data__batch_size": 32, **METHODS[method]},
        epochs=4,
    )
    launch(recipe, tmp_path / "whole")

    def stop_after_three(metrics: Any) -> None:
        if metrics["epoch"] == 3:
            raise StoppedError

    often = recipe.model_copy(update={"checkpoint": CheckpointSpec(every_steps=2)})
    state = train_until(often, RunFolder(tmp_path / "parts"), 1, 3)
    assert (state.next_epoch, state.underway and state.underway.step) == (1, 2)
    with pytest.raises(StoppedError):
        launch(recipe, tmp_path / "parts", on_epoch=stop_after_three)
    assert read_state(tmp_path / "parts/last").next_epoch == 3
    launch(recipe, tmp_path / "parts")
    assert read_state(tmp_path / "whole/last").passes == read_state(tmp_path / "parts/last").passes
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    guarded = [read_state(tmp_path / name / "last").guarded_acc for name in ("whole", "parts")]
    assert guarded[0] == guarded[1]
    assert bool(guarded[0]) == (method == "fast")
    for part in ("last", "checkpoint"):
        whole, parts = (
            load_file(next((tmp_path / name / part).glob("*model.safetensors")))
            for name in ("whole", "parts")
        )
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_states_of_former_versions_are_read() -> None:
    """They kept what the guard saw last, or nothing."""
    state = {"recipe_hash": "", "classes": {}, "fingerprints": {}, "start_weights": None, "num_epochs": 1}
    for former, now in ((None, []), (0.25, [0.25]), ([0.5, 0.25], [0.5, 0.25])):
        text = json.dumps({**state, "guarded_acc": former})
        assert TrainState.model_validate_json(text).guarded_acc == now


def test_the_average_by_hand(model: Any) -> None:
    ema = EMA(model, 0.75)
    weight = model.heads["target"].weight
    values = []
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            weight.fill_(value)
        ema.update()
        values.append(float(ema.model.heads["target"].weight[0, 0]))
    # The first update copies; then 0.75 * average + 0.25 * weights.
    assert values == pytest.approx([1.0, 1.25, 1.9375])
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert model.heads["target"].weight.requires_grad


def test_the_average_is_what_is_kept(tiny_recipe: Any, tmp_path: Path) -> None:
    launch(tiny_recipe(optim__ema_decay=0.9, data__shots_per_class=30), tmp_path / "run")
    kept = load_file(tmp_path / "run/checkpoint/model.safetensors")
    state = read_state(tmp_path / "run/last")
    stem = f"epoch-{state.next_epoch:05d}"
    average = load_file(tmp_path / "run/last" / f"{stem}.average.safetensors")
    raw = load_file(tmp_path / "run/last" / f"{stem}.model.safetensors")
    name = "heads.target.weight"
    assert state.best_epoch == state.next_epoch - 1
    assert torch.equal(kept[name], average[f"module.{name}"])
    assert not torch.equal(kept[name], raw[name])


def test_patience_ends_a_run_that_gets_no_better(tiny_recipe: Any, tmp_path: Path) -> None:
    """At a learning rate that changes nothing, no epoch is better than the first."""
    recipe = tiny_recipe(epochs=9, optim__lr=1e-9, validation__patience=2, validation__steps=0,
                         validation__metric="val/target/clean_acc", objective__adversary=None,
                         schedule={"kind": "full", "batch_norm": "frozen"})  # fmt: skip
    state = launch(recipe, tmp_path / "run")
    assert (state.next_epoch, state.best_epoch, state.is_finished) == (3, 0, True)
    assert state.stopped == "no better val/target/clean_acc in 2 validations"


@pytest.mark.parametrize("action", ["stop", "return"])
def test_a_collapsed_epoch_is_thrown_away(tiny_recipe: Any, tmp_path: Path, action: str) -> None:
    """A guard that calls every fall a collapse sees one sooner or later: the epochs differ by chance."""
    guard = {"max_drop": 1e-9, "action": action}
    adversary = {"kind": "fast", "eps": 0.3, "rel_step": 2.0, "guard": guard}
    recipe = tiny_recipe(
        epochs=12, objective__adversary=adversary, optim__lr=0.3, optim__lr_schedule="constant",
        data__shots_per_class=40, validation__max_images=16,
    )  # fmt: skip
    assert Guard(**guard).action == action
    state = launch(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    guarded = [row["train/guarded_acc"] for row in rows]
    falls = [i for i in range(1, len(guarded)) if "val/target/robust_acc" not in rows[i]]
    assert falls, guarded
    assert state.is_finished
    assert state.best_epoch not in falls
    if action == "stop":
        assert state.stopped is not None
        assert f"catastrophic overfitting in epoch {falls[0] + 1}" in state.stopped
        assert state.next_epoch == falls[0] == len(rows) - 1
    else:
        assert state.stopped is None
        assert state.next_epoch == len(rows) == 12
