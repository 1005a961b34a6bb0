"""Each image is used once per epoch by the updates that are in the weights, whatever happened in between."""

import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from temper.cluster import workers
from temper.cluster.datasets import build_train_data, decode_splits
from temper.data import Plan
from temper.errors import Interrupted, RecipeError
from temper.recipe import CheckpointSpec, Recipe
from temper.records import RunFolder
from temper.run.open_data import open_data
from temper.seeds import derive_seed
from temper.tracking import JsonlTracker, NullTracker
from temper.training import (
    DistributedWorker,
    Origin,
    TrainData,
    TrainState,
    Worker,
    read_samples,
    read_state,
    train,
)
from temper.training.samples import Row

NUM_KILLS = 20


def feed_of(recipe: Recipe, rank: int = 0, world_size: int = 1) -> TrainData:
    data = open_data(recipe)
    decoded = decode_splits(recipe, data, with_ray=False)
    return build_train_data(recipe, data, decoded, rank=rank, world_size=world_size)


def part_of(feed: TrainData, recipe: Recipe, rank: int, world_size: int) -> TrainData:
    """The same images, for one rank of several."""
    decoded = {f"{task}/val": images for task, images in feed.val.items()}
    for task in feed.classes:
        decoded[f"{task}/train"] = getattr(feed, task)._data  # type: ignore[attr-defined]
    return build_train_data(recipe, open_data(recipe), decoded, rank=rank, world_size=world_size)


def run_here(recipe: Recipe, run: RunFolder, feed: TrainData) -> TrainState:
    start = read_state(run.last).next_epoch if (run.last / "state.json").exists() else 0
    return train(recipe, run, feed, worker=Worker(), tracker=JsonlTracker(run.metrics, start))


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(next(run.last.glob("*.model.safetensors")))


def assert_same_weights(one: RunFolder, two: RunFolder) -> None:
    a, b = weights_of(one), weights_of(two)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def assert_exactly_once(rows: list[Row], recipe: Recipe, num_rows: int) -> None:
    """Against the order of each epoch, written out: step after step, share after share, nothing twice."""
    seed, shares = derive_seed(recipe.seed, "batches", "target"), recipe.workers.num_shares
    expected = []
    for epoch in range(recipe.epochs):
        plan = Plan(num_rows, recipe.data.batch_size, seed, shares=shares)
        order, start = plan.order(epoch), 0
        for step, parts in enumerate(plan.parts()):
            for share, part in enumerate(parts):
                places = order[start : start + len(part)].tolist()
                expected.append({"epoch": epoch, "step": step, "share": share, "places": places})
                start += len(part)
        assert num_rows - start <= 1
        used = [place for row in expected if row["epoch"] == epoch for place in row["places"]]
        assert len(used) == len(set(used)) == start
    assert [(row["epoch"], row["step"], row["share"]) for row in rows] == [
        (row["epoch"], row["step"], row["share"]) for row in expected
    ]
    known: dict[int, int] = {}
    for row, wanted in zip(rows, expected, strict=True):
        for image, place in zip(row["target"], wanted["places"], strict=True):
            assert known.setdefault(place, image) == image
    assert len(set(known.values())) == len(known)


# --- one process that is killed -----------------------------------------------------------------


def fork(work: Callable[[], Any]) -> int:
    """Run ``work`` in a copy of this process, which needs no time to import; its id."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray may have put its own there, for tests before
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def kill_at_random(child: int, run: RunFolder, rng: random.Random) -> None:
    """After a few more steps, and then at any moment of a step or of a save."""
    until, steps = time.monotonic() + 120, num_lines(run) + rng.randrange(4)
    while num_lines(run) < steps and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(rng.random() * 0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def num_lines(run: RunFolder) -> int:
    path = run.samples / "rank-00000.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def test_twenty_kills_at_random_moments_change_nothing(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        epochs=6, data__shots_per_class=20, data__batch_size=16, optim__ema_decay=0.9,
        checkpoint={"every_steps": 2}, tracking={"wandb": False, "samples": True},
        validation={"steps": 1, "max_images": 16},
    )  # fmt: skip
    feed = feed_of(recipe)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    run_here(recipe, whole, feed)
    rng = random.Random(7)
    where = []
    for _ in range(NUM_KILLS):
        child = fork(lambda: run_here(recipe, parts, feed))
        kill_at_random(child, parts, rng)
        if (parts.last / "state.json").exists():
            state = read_state(parts.last)
            where.append((state.next_epoch, state.underway.step if state.underway else 0))
    assert where == sorted(where), "no save was lost"
    assert any(step for _, step in where), "no kill within an epoch"
    assert run_here(recipe, parts, feed).is_finished
    assert_exactly_once(read_samples(parts), recipe, num_rows=100)
    assert read_samples(parts) == read_samples(whole)
    assert_same_weights(whole, parts)
    one, two = (read_state(run.last) for run in (whole, parts))
    assert (one.best_metrics, one.passes) == (two.best_metrics, two.passes)


class StoppedError(Exception):
    pass


class Failing:
    """Batches whose storage fails at one of them."""

    def __init__(self, batches: Any, where: tuple[int, int] | None) -> None:
        self._batches, self._where, self.num_batches = batches, where, batches.num_batches

    def epoch(self, epoch: int, first: int = 0) -> Any:
        for number, batch in enumerate(self._batches.epoch(epoch, first), first):
            if (epoch, number) == self._where:
                raise StoppedError
            yield batch

    def close(self) -> None:
        self._batches.close()


def failing_at(feed: TrainData, where: tuple[int, int] | None) -> TrainData:
    return replace(feed, target=Failing(feed.target, where))


def test_a_crash_between_any_two_files_of_a_save_leaves_the_former_one(
    tiny_recipe: Any, tmp_path: Path
) -> None:
    """Whatever a crash can leave: some new files with the old state, or old ones with the new."""
    recipe = tiny_recipe(
        epochs=1, data__shots_per_class=20, data__batch_size=32, optim__ema_decay=0.9,
        checkpoint={"every_steps": 1}, validation={"steps": 1, "max_images": 16},
    )  # fmt: skip
    feed = feed_of(recipe)
    folders = {number: RunFolder(tmp_path / f"{number}") for number in (1, 2, 9)}
    run_here(recipe, folders[9], feed)
    for number in (1, 2):
        with pytest.raises(StoppedError):
            run_here(recipe, folders[number], failing_at(feed, (0, number)))
    before, after = (sorted(folders[number].last.iterdir()) for number in (1, 2))
    new = [path for path in after if path.name != "state.json"]
    assert len(new) == 3
    for count in range(len(new) + 2):
        run = RunFolder(tmp_path / f"crash-{count}")
        run.last.mkdir(parents=True)
        for path in [*before, *new[:count], *(after if count > len(new) else [])]:
            shutil.copy(path, run.last / path.name)
        (run.last / ".epoch-00000-step-00000002.model.safetensors.0f.tmp").write_bytes(b"half")
        assert run_here(recipe, run, feed).is_finished
        assert_same_weights(folders[9], run)


def test_sigterm_saves_at_the_next_step_and_ends_in_order(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        epochs=200, data__batch_size=8, checkpoint={"every_minutes": None},
        tracking={"wandb": False, "samples": True}, validation={"steps": 1, "max_images": 16},
    )  # fmt: skip
    data, run = open_data(recipe), RunFolder(tmp_path / "run")
    decoded = decode_splits(recipe, data, with_ray=False)
    said = tmp_path / "said.txt"

    def work() -> None:
        try:
            workers.run_here(recipe, run, data, decoded, origin=Origin(), report=None)
        except Interrupted as stop:
            said.write_text(str(stop))

    child = fork(work)
    until = time.monotonic() + 120
    while num_lines(run) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == 0
    assert "run the same command again to resume" in said.read_text()
    state, last = read_state(run.last), read_samples(run)[-1]
    num_batches = feed_of(recipe).target.num_batches
    done = state.next_epoch * num_batches + (state.underway.step if state.underway else 0)
    assert done == last["epoch"] * num_batches + last["step"] + 1, "a step was lost"
    assert 5 <= done < 200 * num_batches
    assert not run.stop.exists()


# --- workers that come and go -------------------------------------------------------------------

ELASTIC: dict[str, dict[str, Any]] = {
    "clean": {"objective__adversary": None},
    "pgd, ema": {"optim__ema_decay": 0.9},
    "awp": {"objective__adversary": {"kind": "pgd", "eps": 0.1, "steps": 2, "awp": {}}},
    "free": {"objective__adversary": {"kind": "free", "eps": 0.1, "replays": 2}},
    "fast, mixing": {"objective__adversary": {"kind": "fast", "eps": 0.1}, "data__mixing": {}},
}
ROUNDING = {"awp": 5e-3, "free": 5e-3, "fast, mixing": 5e-3}
"""Of the loss, where it is more than 1e-4: AWP divides by the norm of a gradient, however small that is; free
and fast training follow the sign of a gradient, and where that is 0 but for rounding, either one.
"""
SESSIONS: list[tuple[int, tuple[int, int] | None]] = [
    (2, (0, 1)),
    (4, (0, 3)),
    (1, (1, 1)),
    (3, (1, 2)),
    (2, None),
]
"""How many workers, and before which batch (epoch, number) their storage fails."""


def _session(
    rank: int, recipes: dict[str, Recipe], feeds: dict[str, TrainData], folder: Path, number: int
) -> None:
    world_size, where = SESSIONS[number]
    store = f"file://{folder}/store-{number}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    for name, recipe in recipes.items():
        feed = failing_at(part_of(feeds[name], recipe, rank, world_size), where)
        try:
            train(recipe, RunFolder(folder / name), feed, worker=DistributedWorker(), tracker=NullTracker())
        except StoppedError:
            continue
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_the_number_of_workers_changes_nothing_but_rounding(tiny_recipe: Any, tmp_path: Path) -> None:
    recipes = {
        name: tiny_recipe(
            **changes, epochs=2, data__shots_per_class=30, data__batch_size=32,
            workers={"num_workers": [1, 4]},
            checkpoint={"every_steps": 1}, tracking={"wandb": False, "samples": True},
            validation={"steps": 1, "max_images": 32}, optim__lr=0.02,
        )
        for name, changes in ELASTIC.items()
    }  # fmt: skip
    feeds = {name: feed_of(recipe) for name, recipe in recipes.items()}
    for name, recipe in recipes.items():
        run_here(recipe, RunFolder(tmp_path / "alone" / name), feeds[name])
    for number, (world_size, _) in enumerate(SESSIONS):
        arguments = (recipes, feeds, tmp_path / "elastic", number)
        (tmp_path / "elastic").mkdir(exist_ok=True)
        mp.start_processes(_session, arguments, nprocs=world_size, start_method="fork")
    for name, recipe in recipes.items():
        alone, elastic = RunFolder(tmp_path / "alone" / name), RunFolder(tmp_path / "elastic" / name)
        assert_exactly_once(read_samples(elastic), recipe, num_rows=150)
        assert read_samples(elastic) == read_samples(alone)
        one, two = read_state(alone.last), read_state(elastic.last)
        assert two.is_finished
        assert one.passes == two.passes
        rounding = ROUNDING.get(name, 1e-4)
        losses = [state.best_metrics["train/loss"] for state in (one, two)]
        assert losses[0] == pytest.approx(losses[1], rel=rounding), name
        a, b = weights_of(alone), weights_of(elastic)
        far = {key: float((a[key] - b[key]).abs().max()) for key in a if a[key].is_floating_point()}
        assert max(far.values()) < 10 * rounding, (name, far)


def test_how_many_workers_may_be_named(tiny_recipe: Any) -> None:
    recipe = tiny_recipe(workers={"num_workers": [1, 4]})
    assert (recipe.workers.max_workers, recipe.workers.num_shares) == (4, 4)
    assert recipe.hash == tiny_recipe(workers={"num_workers": 4}).hash
    assert recipe.hash != tiny_recipe(workers={"num_workers": [1, 2]}).hash
    often = recipe.model_copy(update={"checkpoint": CheckpointSpec(every_steps=5, every_minutes=None)})
    assert often.hash == recipe.hash
    for wrong in ([0, 4], [4, 2], [1, 2, 3], -1):
        with pytest.raises(RecipeError, match=r"workers\.num_workers"):
            tiny_recipe(workers={"num_workers": wrong})
