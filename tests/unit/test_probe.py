"""The linear probe: an exact optimum, the same for any number of workers, and a floor under every run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from temper.batches import Batch, ResidentBatches
from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.data import Images
from temper.errors import CheckpointError, RecipeError
from temper.leaderboard import build_leaderboard
from temper.models import build_model
from temper.recipe import CheckpointSpec, Recipe, load_recipe, probe_recipe
from temper.records import RunFolder, hash_of_recipe
from temper.run.open_data import open_data
from temper.spec import dump_yaml
from temper.tracking import NullTracker
from temper.training import DistributedWorker, Origin, Worker, plan_phases, read_state, train
from temper.training.linear_head import NEVER, STRENGTHS, Examples, Standardised, solve_head
from temper.training.probe import Probe
from temper.training.state import TrainState

QUICK: dict[str, Any] = {
    "data__shots_per_class": 20,
    "data__batch_size": 20,
    "objective__alpha": 0.0,
    "objective__adversary": None,
    "validation__metric": "val/target/clean_acc",
    "tracking__tensorboard": False,
}


def examples(num_classes: int, count: int, seed: int) -> Examples:
    """Overlapping classes on features of quite different sizes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    features = generator.normal(size=(count, 6)) + 1.5 * np.eye(num_classes, 6)[labels]
    return Examples((features * [1, 2, 5, 1, 3, 0.5] + 4).astype(np.float32), labels)


# --- the optimum ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_head_is_the_optimum_that_scikit_learn_finds(num_classes: int, is_balanced: bool) -> None:
    from sklearn.linear_model import LogisticRegression

    train, val = examples(num_classes, 90, 0), examples(num_classes, 60, 1)
    train = Examples(train.features[10:80], np.where(np.arange(70) < 40, 0, train.labels[10:80]))
    head = solve_head(train, val, num_classes, is_balanced=is_balanced)
    assert head.strength in STRENGTHS
    space = Standardised.of(train.features)
    features = (train.features - space.mean) / space.scale
    found = LogisticRegression(
        C=head.strength, tol=1e-10, max_iter=10_000, class_weight="balanced" if is_balanced else None
    ).fit(features, train.labels)
    logits = train.features @ head.weight.T + head.bias
    expected = found.decision_function(features)
    if num_classes == 2:
        assert logits[:, 1] - logits[:, 0] == pytest.approx(expected, abs=1e-3)
        return
    centred = [answers - answers.mean(1, keepdims=True) for answers in (logits, expected)]
    assert centred[0] == pytest.approx(centred[1], abs=1e-3)
    weight = head.weight * space.scale
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[train.labels]
    counts = np.bincount(train.labels)
    own = len(train.labels) / (3 * counts[train.labels]) if is_balanced else np.ones(len(train.labels))
    gradient = weight / head.strength + (own[:, None] * shares).T @ features
    assert np.abs(gradient).max() / len(train.labels) < 2e-6


def test_classes_without_a_training_image_never_win() -> None:
    train, val = examples(3, 60, 0), examples(3, 30, 1)
    few = Examples(train.features[train.labels != 1], train.labels[train.labels != 1])
    head = solve_head(few, val, 4, is_balanced=True)
    answers = (val.features @ head.weight.T + head.bias).argmax(1)
    assert set(answers) == {0, 2}
    assert head.bias[[1, 3]].tolist() == [NEVER, NEVER]
    one = Examples(train.features[train.labels == 1], train.labels[train.labels == 1])
    head = solve_head(one, val, 4, is_balanced=False)
    assert set((val.features @ head.weight.T + head.bias).argmax(1)) == {1}
    assert np.isfinite(head.weight).all()


def test_of_equal_accuracies_the_one_that_is_surer_of_them() -> None:
    """All separate the validation images; the weakest regularisation is the surest."""
    labels = np.arange(40) % 2
    features = (10.0 * labels[:, None] + np.random.default_rng(0).normal(size=(40, 3))).astype(np.float32)
    head = solve_head(Examples(features, labels), Examples(features, labels), 2, is_balanced=False)
    assert head.strength == STRENGTHS[-1]
    empty = Examples(features[:0], labels[:0])
    assert solve_head(Examples(features, labels), empty, 2, is_balanced=False).strength == 1e-2


def test_a_feature_that_hardly_changes_is_not_blown_up() -> None:
    features = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    features[:, 1] = 0
    features[7, 1] = 1e-4
    features[:, 2] = 5
    scale = Standardised.of(features).scale
    assert scale[1] == scale[2] == pytest.approx(0.1 * np.median(features.std(0)), rel=1e-5)
    assert np.isfinite(Standardised.of(features * 0).of_raw(features)).all()


def test_every_image_once_whatever_the_number_of_ranks() -> None:
    labels = np.repeat([0, 1], [90, 17])
    images = Images(np.zeros((107, 3, 8, 8), np.uint8), labels, np.arange(107) * 2)

    def rows(world_size: int, limit: int) -> list[int]:
        batches = [
            ResidentBatches(images, batch_size=8, seed=0, rank=rank, world_size=world_size, is_balanced=True)
            for rank in range(world_size)
        ]
        return sorted(int(row) for one in batches for batch in one.once(limit, 0) for row in batch.rows)

    assert rows(1, 1000) == rows(3, 1000) == list(range(0, 214, 2))
    assert rows(1, 20) == rows(3, 20)
    assert len(rows(3, 20)) == 20


# --- runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tiny_recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A start that has learned the source."""
    folder = tmp_path_factory.mktemp("start") / "run"
    changes = {"schedule": {"kind": "full"}, "optim__lr": 0.05, "data__shots_per_class": 20}
    recipe = tiny_recipe(**{**QUICK, **changes}, epochs=2)
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"target": recipe.data.source, "source": None})}
    )
    launch(recipe, folder)
    return str(folder)


def metric_of(state: TrainState) -> float:
    return state.best_metrics["val/target/clean_acc"]


def test_fine_tuning_begins_at_the_accuracy_of_the_probe(
    tiny_recipe: Any, start: str, tmp_path: Path
) -> None:
    still = {"kind": "full", "batch_norm": "frozen"}
    recipe = tiny_recipe(**QUICK, model__weights=start, schedule=still, optim__lr=1e-9, epochs=1)
    state = launch(recipe, tmp_path / "run")
    probe = read_state(tmp_path / "run/probe/checkpoint")
    (row,) = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert row["val/target/clean_acc"] == probe.best_metrics["val/target/clean_acc"] > 0.6
    assert state.best_is_probe, "of equals the earlier is the best"
    own = recipe.model_copy(update={"model": recipe.model.model_copy(update={"head": "start"})})
    launch(own, tmp_path / "own")
    (row,) = map(json.loads, (tmp_path / "own/metrics.jsonl").read_text().splitlines())
    assert row["val/target/clean_acc"] < metric_of(probe)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_no_run_is_worse_than_its_probe(
    tiny_recipe: Any, start: str, tmp_path: Path, ema_decay: float | None
) -> None:
    """At a rate that ruins the model, the probe is what is kept, evaluated, and compared with."""
    recipe = tiny_recipe(
        **QUICK, model__weights=start, optim__lr=10.0, optim__ema_decay=ema_decay, epochs=2,
        schedule={"kind": "lp_ft", "full_lr_factor": 1.0},
    )  # fmt: skip
    state = launch(recipe, tmp_path / "run")
    kept, probe = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run/probe")
    assert (state.best_epoch, state.best_is_probe, state.is_finished) == (None, True, True)
    assert state.best_metrics == read_state(probe.checkpoint).best_metrics
    assert state.passes.forward > read_state(probe.checkpoint).passes.forward > 0
    one, two = (load_file(run.checkpoint / "model.safetensors") for run in (kept, probe))
    assert all(torch.equal(one[name], two[name]) for name in one)
    if ema_decay is None:
        assert_probe_is_evaluated(kept, probe)


def assert_probe_is_evaluated(kept: RunFolder, probe: RunFolder) -> None:
    record, baseline = evaluate_run(kept.path), evaluate_run(probe.path)
    gain = record.promises.adaptability
    assert gain is not None
    assert gain.frozen_start_balanced_acc == baseline.balanced_acc == record.balanced_acc
    assert baseline.clean_acc == record.clean_acc
    assert baseline.promises.adaptability is not None
    assert baseline.promises.adaptability.gain == 0
    summary = build_leaderboard([kept.path], kept.path.parent / "board")
    labels = {entry.name: entry.baseline for entry in summary.boards[0].entries}
    assert labels == {"tiny": None, "tiny-probe": "linear probe"}
    assert "tiny-probe (linear probe)" in (kept.path.parent / "board/leaderboard.md").read_text()


def test_a_better_epoch_takes_the_place_of_the_probe(tiny_recipe: Any, start: str, tmp_path: Path) -> None:
    """Under attack the probe falls at once: it is compared by the run's own metric."""
    adversary = {"kind": "pgd", "eps": 0.1, "steps": 2}
    changes = {"objective__adversary": adversary, "validation__metric": None, "data__shots_per_class": None}
    recipe = tiny_recipe(**{**QUICK, **changes}, model__weights=start, epochs=3)
    state = launch(recipe, tmp_path / "run")
    assert state.best_epoch is not None
    assert not state.best_is_probe
    assert state.probe_metrics is not None
    metric = "val/target/robust_acc"
    assert state.best_metrics[metric] > state.probe_metrics[metric]


class StoppedError(Exception):
    pass


class Failing(ResidentBatches):
    """Batches whose storage fails at the second of an epoch."""

    def __init__(self, batches: ResidentBatches) -> None:
        vars(self).update(vars(batches))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, first), first):
            if number == 2:
                raise StoppedError
            yield batch


@pytest.mark.parametrize("every_steps", [None, 1])
def test_an_interrupted_run_keeps_the_probe(
    tiny_recipe: Any, start: str, tmp_path: Path, every_steps: int | None
) -> None:
    """It is interrupted in its first epoch, before and after a step of it was saved."""
    recipe = tiny_recipe(**QUICK, model__weights=start, optim__lr=10.0, epochs=1)
    launch(recipe, tmp_path / "whole")
    often = recipe.model_copy(update={"checkpoint": CheckpointSpec(every_steps=every_steps)})
    data = open_data(often)
    feed = build_train_data(often, data, decode_splits(often, data, with_ray=False))
    assert isinstance(feed.target, ResidentBatches)
    run = RunFolder(tmp_path / "parts")
    origin = Origin(start, str(tmp_path / "whole/probe"))
    with pytest.raises(StoppedError):
        train(often, run, replace(feed, target=Failing(feed.target)), worker=Worker(),
              tracker=NullTracker(), origin=origin)  # fmt: skip
    assert read_state(run.last).best_is_probe
    assert read_state(run.last).has_begun == (every_steps is not None)
    state = launch(recipe, run.path)
    whole = read_state(tmp_path / "whole/last")
    assert state.passes == whole.passes
    for name in ("best_metrics", "probe_metrics", "best_epoch", "since_best", "best_of_epochs"):
        assert getattr(state, name) == getattr(whole, name), name
    one, two = (load_file(path / "checkpoint/model.safetensors") for path in (tmp_path / "whole", run.path))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_head_alone_takes_one_epoch(tiny_recipe: Any, start: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, model__weights=start, schedule={"kind": "head_only"}, epochs=20)
    assert recipe.is_probe
    state = launch(recipe, tmp_path / "run")
    assert not (tmp_path / "run/probe").exists(), "it is the probe"
    assert (state.best_epoch, state.best_is_probe, state.passes.backward) == (0, True, 0)
    assert state.stopped is not None
    assert "the head is at its optimum" in state.stopped
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1
    with pytest.raises(CheckpointError, match="this run is finished"):
        launch(recipe, tmp_path / "run")


def test_steps_begin_after_the_probe_with_a_warm_up_of_their_own(tiny_recipe: Any) -> None:
    recipe = tiny_recipe(**QUICK, schedule={"kind": "lp_ft"}, epochs=5, optim__warmup_frac=0.5)
    model = build_model(recipe.model, open_data(recipe).classes, image_size=8, seed=0)
    probe, tune = plan_phases(recipe, model)
    assert (probe.is_solved, tune.num_stepped) == (True, 4)
    moments = [tune.moment(epoch, step, num_batches=2) for epoch, step in ((1, 0), (1, 1), (3, 0), (5, 0))]
    assert [moment.progress for moment in moments] == [0.0, 0.125, 0.5, 1.0]
    assert (moments[1].epoch, moments[1].step) == (1, 1)
    assert recipe.optim.lr_at(moments[0].progress) == 0


@pytest.mark.parametrize(
    "schedule", [{"kind": "lp_ft", "head_frac": 0.6}, {"kind": "gradual", "epochs_per_group": 2}]
)
def test_epochs_of_a_solved_phase_pass_at_once(tiny_recipe: Any, tmp_path: Path, schedule: Any) -> None:
    """As a recipe of an earlier version may have more than one; from a random start, without a run before."""
    recipe = tiny_recipe(**{**QUICK, "objective__alpha": 0.3}, schedule=schedule, epochs=5)
    state = launch(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first = plan_phases(recipe, build_model(recipe.model, open_data(recipe).classes, image_size=8, seed=0))[0]
    assert first.phase.num_epochs > 1
    assert [row["epoch"] for row in rows] == [1, *range(first.phase.end_epoch + 1, 6)]
    assert rows[0]["train/loss"] == pytest.approx(
        rows[0]["train/target/loss"] + 0.3 * rows[0]["train/source/loss"]
    )
    assert rows[0]["val/source/clean_acc"] > 0.6, "the source's head is solved too"
    assert state.next_epoch == 5


def test_an_attacked_probe_starts_from_the_clean_one(tiny_recipe: Any, start: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        **{**QUICK, "objective__adversary": {"kind": "pgd", "eps": 0.1, "steps": 1}}, model__weights=start,
        schedule={"kind": "roli"}, optim__lr=1e-9, epochs=1,
    )  # fmt: skip
    launch(recipe, tmp_path / "run")
    last = load_file(next((tmp_path / "run/last").glob("*.model.safetensors")))
    probe = load_file(tmp_path / "run/probe/checkpoint/model.safetensors")
    assert torch.allclose(last["heads.target.weight"], probe["heads.target.weight"], atol=1e-6)


# --- recipes ----------------------------------------------------------------------------------


def test_runs_from_the_same_start_share_their_probe(tiny_recipe: Any) -> None:
    base = tiny_recipe(model__weights="start")
    same = [
        {"objective__alpha": 0.5}, {"optim__lr": 0.3}, {"schedule": {"kind": "gradual"}}, {"epochs": 9},
        {"objective__adversary": None, "validation__metric": "val/target/clean_acc"}, {"data__augment": {}},
        {"model__adapter": {"kind": "norm_bias"}}, {"model__head": "start"}, {"validation__patience": 3},
    ]  # fmt: skip
    other = [
        {"model__backbone": "resnet20"}, {"seed": 1}, {"objective__class_weights": "balanced"},
        {"data__shots_per_class": 5}, {"validation__steps": 3}, {"threat__eps": 0.2},
    ]  # fmt: skip
    found = [probe_recipe(tiny_recipe(model__weights="start", **changes)).hash for changes in (*same, *other)]
    assert set(found[: len(same)]) == {probe_recipe(base).hash}
    assert len(set(found[len(same) :]) - {probe_recipe(base).hash}) == len(other)
    assert probe_recipe(base).is_probe


def test_the_classes_count_the_same_where_the_recipe_says_so(tiny_recipe: Any) -> None:
    assert not tiny_recipe().is_balanced
    for changes in (
        {"objective__class_weights": "balanced"},
        {"data__sampling": "balanced"},
        {"validation__metric": "val/target/robust_balanced_acc"},
    ):
        recipe = tiny_recipe(**changes, model__weights="start")
        assert recipe.is_balanced
        assert probe_recipe(recipe).selection_metric == "val/target/balanced_acc"
        assert probe_recipe(recipe).is_balanced


def test_recipes_of_earlier_versions_are_read_and_keep_their_hash(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(schedule={"kind": "lp_ft", "head_frac": 0.5}, model__weights="start")
    document = recipe.resolved()
    del document["model"]["head"]
    (tmp_path / "recipe.yaml").write_text(dump_yaml(document))
    again = load_recipe(tmp_path / "recipe.yaml")
    assert again == recipe
    assert again.hash == hash_of_recipe(document)
    assert (
        tiny_recipe(model__weights="start", model__head="start").hash
        != tiny_recipe(model__weights="start").hash
    )
    with pytest.raises(RecipeError, match=r"model.head: probe needs a start that has learned something"):
        tiny_recipe(model__head="probe")


# --- two ranks --------------------------------------------------------------------------------


def _rank(rank: int, recipe: Recipe, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    data = open_data(recipe)
    feed = build_train_data(
        recipe, data, decode_splits(recipe, data, with_ray=False), rank=rank, world_size=2
    )
    train(recipe, RunFolder(folder / "two"), feed, worker=DistributedWorker(), tracker=NullTracker())
    torch.distributed.destroy_process_group()


def test_two_ranks_find_the_head_of_one(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, schedule={"kind": "head_only"}, data__sampling="balanced", epochs=1)
    launch(recipe, tmp_path / "one")
    mp.spawn(_rank, (recipe, tmp_path), nprocs=2)
    one, two = (Probe.of(str(tmp_path / name)) for name in ("one", "two"))
    assert torch.allclose(one.head.weight, two.head.weight, atol=1e-4)
    assert torch.allclose(one.head.bias, two.head.bias, atol=1e-4)
    assert one.state.passes == two.state.passes
    assert one.metrics["probe/strength"] == two.metrics["probe/strength"]
