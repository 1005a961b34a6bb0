"""Two ranks that train by each method end with the same weights, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from temper.cluster.datasets import build_train_data, decode_splits, val_images
from temper.recipe import Recipe, WorkersSpec
from temper.records import RunFolder, write_atomic
from temper.run.open_data import open_data
from temper.tracking import NullTracker
from temper.training import DistributedWorker, read_state, validate_waiting
from temper.training.deferred_validation import read_answer, weights_of
from temper.training.loop import Training
from temper.training.state import Waiting

PGD = {"kind": "pgd", "eps": 0.1, "steps": 2}
METHODS: dict[str, dict[str, Any]] = {
    "trades with awp, both tasks": {
        "objective__adversary": {"kind": "trades", "eps": 0.1, "steps": 2, "awp": {}, "tasks": "both"}
    },
    "free": {"objective__adversary": {"kind": "free", "eps": 0.1, "replays": 2}},
    "fast": {"objective__adversary": {"kind": "fast", "eps": 0.1}},
    "twins": {"schedule": {"kind": "twins"}, "objective__adversary": PGD},
    "a solved head": {"schedule": {"kind": "head_only"}, "objective__adversary": None},
    "average, mixing, balanced": {
        "optim__ema_decay": 0.9, "data__mixing": {}, "data__sampling": "balanced",
    },
    "adalora": {"model__adapter": {"kind": "adalora", "init_rank": 4, "target_rank": 2}},
    "norm_bias, gradual": {
        "model__adapter": {"kind": "norm_bias"}, "schedule": {"kind": "gradual", "epochs_per_group": 1},
    },
}  # fmt: skip


def _rank(rank: int, recipes: dict[str, Recipe], folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    for name, recipe in recipes.items():
        data = open_data(recipe)
        feed = build_train_data(
            recipe, data, decode_splits(recipe, data, with_ray=False), rank=rank, world_size=2
        )
        training = Training(
            recipe, RunFolder(folder / name), feed, DistributedWorker("cpu"), NullTracker(), None
        )
        training.finish()
        weights = {n: p.detach() for n, p in training.model.named_parameters()}
        torch.save(weights, folder / f"{name}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_two_ranks_stay_equal_under_every_method(tiny_recipe: Any, tmp_path: Path) -> None:
    recipes = {
        name: tiny_recipe(**changes, epochs=2, data__shots_per_class=20, data__batch_size=16)
        for name, changes in METHODS.items()
    }
    mp.spawn(_rank, (recipes, tmp_path), nprocs=2)
    for name in recipes:
        one, two = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert one.keys() == two.keys()
        different = [n for n in one if not torch.equal(one[n], two[n])]
        assert not different, (name, different)
        assert_answered_alike_later(recipes[name], RunFolder(tmp_path / name))


def assert_answered_alike_later(recipe: Recipe, run: RunFolder) -> None:
    """One process that validates the best epoch's weights later counts what the two ranks counted."""
    state = read_state(run.checkpoint)
    assert state.best_epoch is not None
    waiting = state.model_copy(update={"waiting": [Waiting(epoch=state.best_epoch, metrics={})]})
    write_atomic(weights_of(run, state.best_epoch), (run.checkpoint / "model.safetensors").read_bytes())
    of_two = recipe.model_copy(update={"workers": WorkersSpec(num_workers=2)})
    data = open_data(recipe)
    val = val_images(data, decode_splits(recipe, data, with_ray=False))
    validate_waiting(of_two, run, waiting, val, "cpu")
    best = {metric: value for metric, value in state.best_metrics.items() if metric.startswith("val/")}
    assert read_answer(run, state.best_epoch) == best, recipe.name
