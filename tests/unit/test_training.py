"""The loop itself: golden loss, resumption, and two ranks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.launch import launch
from temper.errors import CheckpointError, ShardError, TrainingError
from temper.models import build_model, set_trainable
from temper.recipe import Recipe, load_recipe
from temper.records import RunFolder
from temper.run.open_data import open_data
from temper.tracking import NullTracker
from temper.training import DistributedWorker, Origin, Worker, plan_phases, read_state, train
from temper.training.data import TrainData, paired_batches
from temper.training.plan import Moment
from temper.training.saving import save_state
from temper.training.step import TrainStep

GRADUAL = {"kind": "gradual", "epochs_per_group": 1}


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_golden_loss(tiny_recipe: Any, tmp_path: Path) -> None:
    """A refactor may not move this; a change of the method may, and then says so in its commit.

    Processors round differently: those with AVX-512 and those without it are 0.001 and 0.003 apart.
    """
    launch(tiny_recipe(), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(GOLDEN, abs=4e-3)


GOLDEN = [1.18611, 0.50609]


def test_a_folder_that_holds_something_else(tiny_recipe: Any, tmp_path: Path) -> None:
    launch(tiny_recipe(epochs=1), tmp_path / "run")
    with pytest.raises(
        CheckpointError,
        match=r"holds a run of another recipe; .* or remove it \(seed is 0 there and 1 here\)",
    ):
        launch(tiny_recipe(epochs=1, seed=1), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"cannot be trained longer: optim\.lr_schedule: cosine"):
        launch(tiny_recipe(epochs=2), tmp_path / "run")
    with pytest.raises(CheckpointError, match="this run is finished"):
        launch(tiny_recipe(epochs=1), tmp_path / "run")


CONSTANT = {"optim__lr_schedule": "constant", "optim__warmup_frac": 0.0, "optim__ema_decay": None}


def test_a_finished_run_that_is_trained_longer_is_the_longer_run(tiny_recipe: Any, tmp_path: Path) -> None:
    launch(tiny_recipe(epochs=1, **CONSTANT), tmp_path / "run")
    state = launch(tiny_recipe(epochs=3, **CONSTANT), tmp_path / "run")
    assert (state.num_epochs, state.next_epoch) == (3, 3)
    launch(tiny_recipe(epochs=3, **CONSTANT), tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    ends = [
        load_file(next((tmp_path / name / "last").glob("*.model.safetensors"))) for name in ("run", "whole")
    ]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert load_recipe(tmp_path / "run/recipe.yaml").epochs == 3


def test_a_run_that_was_cut_short_while_it_was_made_longer_continues(
    tiny_recipe: Any, tmp_path: Path
) -> None:
    run, longer = RunFolder(tmp_path / "run"), tiny_recipe(epochs=2, **CONSTANT)
    state = launch(tiny_recipe(epochs=1, **CONSTANT), run.path)
    save_state(run, state.model_copy(update={"recipe_hash": longer.hash, "num_epochs": 2}))
    assert launch(longer, run.path).next_epoch == 2
    assert load_recipe(run.recipe).epochs == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optim__lr_schedule": "cosine"}, r"optim\.lr_schedule: cosine depends on the length of the run"),
        ({"schedule": GRADUAL}, r"schedule: gradual depends on"),
        ({"optim__ema_decay": "auto"}, r"optim\.ema_decay: auto depends on"),
    ],
)
def test_a_run_whose_first_epochs_would_be_others_is_not_trained_longer(
    changes: dict[str, Any], reason: str, tiny_recipe: Any, tmp_path: Path
) -> None:
    launch(tiny_recipe(**{"epochs": 1, **CONSTANT, **changes}), tmp_path / "run")
    before = (tmp_path / "run/last/state.json").read_bytes()
    with pytest.raises(
        CheckpointError,
        match=rf"epochs is 1 there and 2 here, and it cannot be trained longer: {reason}.*"
        rf"--set model\.weights={tmp_path}/run$",
    ):
        launch(tiny_recipe(**{"epochs": 2, **CONSTANT, **changes}), tmp_path / "run")
    assert (tmp_path / "run/last/state.json").read_bytes() == before


def test_missing_shards_and_diverging_losses(tiny_recipe: Any, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no shards here; create them with `temper shards SRC"):
        launch(tiny_recipe(data__target="nowhere"), tmp_path / "a")
    broken = build_model(tiny_recipe().model, {"target": ["a"], "source": ["b"]}, image_size=8, seed=0)
    torch.nn.init.constant_(broken.backbone.conv1.weight, 3e38)
    torch.save(broken.backbone.state_dict(), tmp_path / "huge.pth")
    with pytest.raises(
        TrainingError, match=r"the features of the start are not finite.*take weights that fit"
    ):
        launch(tiny_recipe(model__weights=str(tmp_path / "huge.pth")), tmp_path / "b")
    recipe, origin = tiny_recipe(), Origin(str(tmp_path / "huge.pth"))
    data = open_data(recipe)
    feed = build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))
    with pytest.raises(TrainingError, match=r"the loss became nan in epoch 1, step 1; lower"):
        train(recipe, RunFolder(tmp_path / "c"), feed, worker=Worker(), tracker=NullTracker(), origin=origin)


def test_pretraining_starts_the_run_and_is_kept(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        pretrain={"epochs": 2}, epochs=1, schedule={"kind": "head_only"}, objective__alpha=0.0
    )
    launch(recipe, tmp_path / "run")
    start = load_file(tmp_path / "run/pretrain/checkpoint/model.safetensors")
    end = load_file(tmp_path / "run/checkpoint/model.safetensors")
    # A head-only run leaves the pretrained backbone as it was, statistics included.
    assert all(torch.equal(value, end[name]) for name, value in start.items() if name.startswith("backbone."))
    assert read_state(tmp_path / "run/checkpoint").num_trained_params == 64 * 5 + 5


# --- two ranks --------------------------------------------------------------------------------


def _rank(rank: int, recipes: dict[str, Recipe], folder: Path) -> None:
    """Train one step in each phase on this rank's share and save the gradients; then train whole runs."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    worker = DistributedWorker("cpu")
    for name, recipe in recipes.items():
        data = open_data(recipe)
        feed = build_train_data(
            recipe, data, decode_splits(recipe, data, with_ray=False), rank=rank, world_size=2
        )
        _save_gradients(recipe, feed, worker, folder / name)
        train(recipe, RunFolder(folder / name / "run"), feed, worker=worker, tracker=NullTracker())
    torch.distributed.destroy_process_group()


def _save_gradients(recipe: Recipe, feed: TrainData, worker: DistributedWorker, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    model = build_model(recipe.model, feed.classes, image_size=8, seed=0)
    tasks = ("target", "source") if recipe.objective.uses_source else ("target",)
    for plan in plan_phases(recipe, model):
        phase = plan.phase
        optimizer = recipe.optim.build(set_trainable(model, phase.trainable, tasks=tasks))
        step = TrainStep(recipe, feed, plan, model, optimizer, worker)
        batches = next(iter(paired_batches(feed, phase.start_epoch, recipe.objective.uses_source)))
        step(batches, Moment(phase.start_epoch, 0, 0.0))
        grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        rows = {task: batch.rows for task, batch in batches.items()}
        torch.save({"grads": grads, "rows": rows}, folder / f"{phase.start_epoch}-{worker.rank}.pt")


def test_two_ranks_have_equal_gradients_after_every_phase_boundary(tiny_recipe: Any, tmp_path: Path) -> None:
    """With a source, and without one, where its head has no gradient."""
    few = {"data__shots_per_class": 20, "data__batch_size": 32, "validation__max_images": 16}
    recipes = {
        f"alpha-{alpha}": tiny_recipe(schedule=GRADUAL, epochs=4, objective__alpha=alpha, **few)
        for alpha in (0.3, 0.0)
    }
    mp.spawn(_rank, (recipes, tmp_path), nprocs=2)
    for name in recipes:
        _check_ranks(tmp_path / name)


def _check_ranks(folder: Path) -> None:
    for epoch in range(4):
        one, two = (torch.load(folder / f"{epoch}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert not set(one["rows"]["target"].tolist()) & set(two["rows"]["target"].tolist())
        assert one["grads"].keys() == two["grads"].keys()
        trained = {name.split(".")[1] for name in one["grads"] if name.startswith("backbone")}
        assert len(trained) == epoch or epoch == 3
        for name, gradient in one["grads"].items():
            assert gradient is not None, name
            assert gradient.abs().sum() > 0 or name.endswith("bias"), name
            assert torch.equal(gradient, two["grads"][name]), name
    assert read_state(folder / "run/last").is_finished
