"""``data.batch_size`` is that of the whole run: the number of workers changes rounding and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from temper.attacks import FGSM, NearPGD, PartGenerator, PatchPGD
from temper.attacks.norms import random_point
from temper.batches import augment
from temper.cluster.claim import claim
from temper.cluster.crossval.plan import PlannedRun
from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.launch import is_trained
from temper.cluster.sweep.driver import resume
from temper.data import AugmentSpec, ShardSet, parts_of
from temper.errors import CheckpointError, RecipeError
from temper.models import build_model, set_trainable
from temper.recipe import Recipe, WorkersSpec
from temper.records import CrossvalFolder, RunFolder, SweepFolder, write_atomic
from temper.run.open_data import open_data
from temper.spec import dump_yaml
from temper.tracking import JsonlTracker
from temper.training import DistributedWorker, TrainState, Worker, plan_phases, read_last, train
from temper.training.compute import choose_compute
from temper.training.data import TrainData, paired_batches
from temper.training.free import FreeStep
from temper.training.plan import Moment
from temper.training.start_model import StartModel
from temper.training.step import TrainStep

# DDP's, of parameters that L2-SP pulls at: it is slower with them, no more.
pytestmark = pytest.mark.filterwarnings("ignore:Grad strides do not match:UserWarning")

PGD = {"kind": "pgd", "eps": 0.1, "steps": 2}
FROZEN = {"kind": "full", "batch_norm": "frozen"}
TRAINED = {"kind": "full"}
"""BatchNorm reads the statistics of the whole batch, whoever has the rest of it."""
METHODS: dict[str, dict[str, Any]] = {
    "pgd": {"objective__adversary": PGD, "data__augment": {"gamma": 0.2}, "optim__ema_decay": 0.9},
    "source of another size": {
        "objective__adversary": {**PGD, "tasks": "both"}, "data__source_batch_size": 21,
    },
    "class weights, smoothed": {
        "objective__adversary": PGD, "objective__class_weights": "balanced",
        "objective__label_smoothing": 0.1,
    },
    "trades, class weights": {
        "objective__adversary": {"kind": "trades", "eps": 0.1, "steps": 1},
        "objective__class_weights": "balanced", "objective__alpha": 0.0,
    },
    "mart": {"objective__adversary": {"kind": "mart", "eps": 0.1, "steps": 2}},
    "awp": {"objective__adversary": {**PGD, "awp": {}}},
    "free": {"objective__adversary": {"kind": "free", "eps": 0.1, "replays": 2}},
    "free, a last batch for all": {
        "objective__adversary": {"kind": "free", "eps": 0.1, "replays": 2}, "data__batch_size": 40,
    },
    "fast, mixup": {"objective__adversary": {"kind": "fast", "eps": 0.1}, "data__mixing": {"kind": "mixup"}},
    "cutmix, class weights": {
        "objective__adversary": None, "data__mixing": {"kind": "cutmix"},
        "objective__class_weights": "balanced",
    },
    "patch": {"threat": {"norm": "patch", "eps": 0.1}, "objective__adversary": {**PGD, "kind": "patch"}},
    "l2": {"threat": {"norm": "l2", "eps": 0.5}, "objective__adversary": {**PGD, "norm": "l2", "eps": 0.5}},
    "l2sp": {
        "objective__source_term": {"kind": "l2sp"}, "pretrain": {"epochs": 1}, "optim__weight_decay": 0.0,
        "objective__adversary": PGD,
    },
    "lwf": {
        "objective__source_term": {"kind": "lwf"}, "pretrain": {"epochs": 1}, "objective__adversary": PGD,
    },
    "adalora": {"model__adapter": {"kind": "adalora", "init_rank": 4, "target_rank": 2}},
    "batch norm": {
        "objective__adversary": {**PGD, "tasks": "both"}, "data__source_batch_size": 21, "schedule": TRAINED,
    },
    "batch norm, fast": {
        "objective__adversary": {"kind": "fast", "eps": 0.1}, "objective__class_weights": "balanced",
        "schedule": TRAINED,
    },
    "batch norm, free": {
        "objective__adversary": {"kind": "free", "eps": 0.1, "replays": 2}, "schedule": TRAINED,
    },
}  # fmt: skip
ROUNDING = 5e-3
"""Of the losses of a run: rounding may turn the sign of a gradient that is nearly 0 (docs/elastic.md). Those
here agreed within 2e-7, and AWP's within 2e-5.
"""
ROUNDING_OF_BATCH_NORM = 3e-2
"""It divides by a spread that may be small, of two images in the last batch; gradients agreed within 1e-5."""
MOST_WORKERS = 3
BATCH = 37
"""Of 150 images: four batches that no number of workers divides, and two images."""


@pytest.fixture(scope="module")
def recipes(tiny_recipe: Any) -> dict[str, Recipe]:
    common = {
        "epochs": 2, "data__shots_per_class": 30, "data__batch_size": BATCH, "schedule": FROZEN,
        "validation": {"steps": 1, "max_images": 45}, "optim__lr": 0.02, "optim__max_grad_norm": 1.0,
    }  # fmt: skip
    return {name: tiny_recipe(**{**common, **changes}) for name, changes in METHODS.items()}


def feed_of(recipe: Recipe, rank: int = 0, world_size: int = 1) -> TrainData:
    """As if classes were far from equal, so that their weights are."""
    data = open_data(recipe)
    decoded = decode_splits(recipe, data, with_ray=False)
    feed = build_train_data(recipe, data, decoded, rank=rank, world_size=world_size)
    return replace(feed, class_counts=[5, 20, 10, 40, 75])


def gradients(recipe: Recipe, feed: TrainData, worker: Worker) -> dict[str, torch.Tensor]:
    """Of the first batch and of the last, of two images."""
    model = build_model(recipe.model, feed.classes, image_size=8, seed=0)
    model.controller.begin(100)
    plan = plan_phases(recipe, model)[0]
    optimizer = recipe.optim.build(set_trainable(model, plan.phase.trainable, recipe.objective.trained_heads))
    kind = FreeStep if getattr(recipe.objective.adversary, "kind", "") == "free" else TrainStep
    step = kind(recipe, feed, plan, model, optimizer, worker, StartModel.of(model, recipe, [plan]))
    batches = list(paired_batches(feed, 0, recipe.objective.uses_source))
    found = {}
    for number in (0, len(batches) - 1):
        step(batches[number], Moment(0, number, 0.0))
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found |= {f"{number}.{name}": grad.clone() for name, grad in grads.items()}
    return found


def _rank(rank: int, world_size: int, recipes: dict[str, Recipe], folder: Path) -> None:
    store = f"file://{folder}/store-{world_size}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    worker = DistributedWorker("cpu")
    for name, recipe in recipes.items():
        feed, out = feed_of(recipe, rank, world_size), folder / name / str(world_size)
        found = gradients(recipe, feed, worker)
        out.mkdir(parents=True, exist_ok=True)
        torch.save(found, out / f"gradients-{rank}.pt")
        if world_size == MOST_WORKERS:
            train(recipe, RunFolder(out), feed, worker=worker, tracker=tracker(RunFolder(out), worker))
    torch.distributed.destroy_process_group()


def tracker(run: RunFolder, worker: Worker) -> JsonlTracker:
    return JsonlTracker(run.metrics if worker.is_chief else run.path / f"rank-{worker.rank}.jsonl")


@pytest.fixture(scope="module")
def trained(recipes: dict[str, Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``<method>/<number of workers>``: the gradients of two steps, and a run."""
    folder = tmp_path_factory.mktemp("whole")
    for name, recipe in recipes.items():
        run = RunFolder(folder / name / "1")
        run.path.mkdir(parents=True)
        torch.save(gradients(recipe, feed_of(recipe), Worker()), run.path / "gradients-0.pt")
        four = recipe.model_copy(update={"workers": WorkersSpec(num_workers=(1, 4))})
        torch.save(gradients(four, feed_of(four), Worker()), run.path / "gradients-of-4-shares.pt")
        train(recipe, run, feed_of(recipe), worker=Worker(), tracker=tracker(run, Worker()))
    for world_size in (2, MOST_WORKERS):
        mp.start_processes(_rank, (world_size, recipes, folder), nprocs=world_size, start_method="fork")
    return folder


@pytest.mark.long
@pytest.mark.parametrize("world_size", [2, MOST_WORKERS])
@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_is_that_of_one_process(trained: Path, name: str, world_size: int) -> None:
    """Of a batch that the workers share unequally, and of one of two images, in which some have no share."""
    one = torch.load(trained / name / "1/gradients-0.pt", weights_only=True)
    assert len({key.partition(".")[0] for key in one}) == 2
    assert all(gradient.norm() > 1e-5 for key, gradient in one.items() if key.endswith("conv1.weight"))
    for rank in range(world_size):
        own = torch.load(trained / name / str(world_size) / f"gradients-{rank}.pt", weights_only=True)
        assert_near(own, one)


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_of_one_worker_that_stands_for_four(trained: Path, name: str) -> None:
    one = torch.load(trained / name / "1/gradients-0.pt", weights_only=True)
    assert_near(torch.load(trained / name / "1/gradients-of-4-shares.pt", weights_only=True), one)


def assert_near(own: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert own.keys() == expected.keys()
    far = {key: float((own[key] - value).norm() / (value.norm() + 1e-3)) for key, value in expected.items()}
    assert max(far.values()) < 1e-3, far


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_a_run_comes_to_the_same(trained: Path, name: str) -> None:
    folders = [RunFolder(trained / name / str(number)) for number in (1, MOST_WORKERS)]
    one, other = ([json.loads(line) for line in run.metrics.read_text().splitlines()] for run in folders)
    assert len(one) == 2
    rounding = ROUNDING_OF_BATCH_NORM if "batch norm" in name else ROUNDING
    for expected, row in zip(one, other, strict=True):
        assert row.keys() == expected.keys()
        for key in [key for key in row if key.startswith("train/")]:
            assert row[key] == pytest.approx(expected[key], rel=rounding, abs=1e-6), key
        for key in [key for key in row if key.startswith("val/")]:  # one image may go either way
            assert row[key] == pytest.approx(expected[key], abs=max(0.03, 3 * rounding)), key
    states = [read_last(run) for run in folders]
    assert states[0] is not None
    assert states[1] is not None
    assert states[0].passes == states[1].passes
    weights = [load_file(next(run.last.glob("*.model.safetensors"))) for run in folders]
    far = {
        key: float((value - weights[1][key]).abs().max())
        for key, value in weights[0].items()
        if value.is_floating_point()
    }
    assert max(far.values()) < 10 * rounding, far


# --- random numbers ---------------------------------------------------------------------------


def parts(draw: Any, size: int, num_shares: int) -> torch.Tensor:
    """What ``draw`` gives, from a generator and the places, for each share of a batch."""
    found = []
    for part in parts_of(size, num_shares):
        generator = PartGenerator("cpu", [(part.start, part.end)], part.size).manual_seed(5)
        if len(part):
            found.append(draw(generator, slice(part.start, part.end)))
    return torch.cat(found)


@pytest.mark.parametrize("num_shares", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "draw",
    [
        lambda g, rows: random_point("linf", IMAGES[rows], 0.1, g),
        lambda g, rows: random_point("linf", IMAGES[rows], EPS[rows], g),
        lambda g, rows: random_point("l2", IMAGES[rows], 0.5, g),
        lambda g, rows: random_point("l1", IMAGES[rows], 2.0, g),
        lambda g, rows: NearPGD(eps=0.1, steps=1).perturb(flat, IMAGES[rows], LABELS[rows], g),
        lambda g, rows: FGSM(eps=0.1, random_start=True).perturb(flat, IMAGES[rows], LABELS[rows], g),
        lambda g, rows: PatchPGD(norm="patch", eps=0.2, steps=2, restarts=2).perturb(
            flat, IMAGES[rows], LABELS[rows], g
        ),
        lambda g, rows: augment((IMAGES[rows] * 255).byte(), LIT, g),
    ],
    ids=["linf", "linf of each", "l2", "l1", "near", "fgsm", "patch", "augmentation"],
)  # fmt: skip
def test_an_image_draws_the_same_in_whichever_share(draw: Any, num_shares: int) -> None:
    whole = draw(torch.Generator().manual_seed(5), slice(0, 13))
    assert torch.allclose(parts(draw, 13, num_shares), whole, atol=1e-6)
    assert not torch.allclose(draw(torch.Generator().manual_seed(6), slice(0, 13)), whole, atol=1e-3)


IMAGES = torch.rand(13, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EPS = torch.linspace(0.05, 0.2, 13).view(-1, 1, 1, 1)
LABELS = torch.arange(13) % 3
LIT = AugmentSpec(zoom_frac=0.1, contrast_frac=0.2, brightness=0.1, gamma=0.2)
WEIGHT = torch.randn(192, 3, generator=torch.Generator().manual_seed(1))


def flat(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1) @ WEIGHT


# --- before anything starts -------------------------------------------------------------------


@pytest.mark.parametrize("field", ["batch_size", "source_batch_size"])
def test_a_batch_with_too_few_images_for_the_workers(tiny_recipe: Any, field: str) -> None:
    changes = {"data__batch_size": 64, f"data__{field}": 7}
    open_data(tiny_recipe(**changes, workers={"num_workers": [1, 3]}))
    with pytest.raises(RecipeError, match=rf"data\.{field}: 4 workers cannot share 7 images.*at least 8"):
        open_data(tiny_recipe(**changes, workers={"num_workers": [1, 4]}))


class StoppedError(Exception):
    pass


def stop(metrics: Any) -> None:
    if metrics["epoch"] == 1:
        raise StoppedError


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_of_former_batches_is_not_resumed(tiny_recipe: Any, tmp_path: Path, num_workers: int) -> None:
    """With one worker they are the same batches."""
    recipe = tiny_recipe(objective__adversary=None, workers={"num_workers": num_workers})
    run = RunFolder(tmp_path)
    with pytest.raises(StoppedError):
        train(recipe, run, feed_of(recipe), worker=Worker(report=stop), tracker=tracker(run, Worker()))
    claim(run, recipe)
    path = run.last / "state.json"
    state = json.loads(path.read_text())
    assert state.pop("batch_size_is_of") == "run"
    path.write_text(json.dumps(state))
    if num_workers == 1:
        claim(run, recipe)
        return
    with pytest.raises(CheckpointError, match=r"for each of its 2 workers.*--set data\.batch_size=128$"):
        claim(run, recipe)
    path.write_text(json.dumps({**state, "next_epoch": 2}))
    with pytest.raises(CheckpointError, match=r"for each of its 2 workers"):
        is_trained(tmp_path, recipe)


def former_run(recipe: Recipe, run: RunFolder) -> None:
    """As a version left it that counted batches for each worker, after its first epoch."""
    data = open_data(recipe)
    state = TrainState(
        recipe_hash=recipe.hash,
        classes=data.classes,
        fingerprints=data.fingerprints,
        start_weights=None,
        num_epochs=recipe.epochs,
        next_epoch=1,
    )
    write_atomic(run.last / "state.json", state.model_dump_json(exclude={"batch_size_is_of"}))


def test_a_sweep_with_runs_of_former_batches_does_not_go_on(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(workers={"num_workers": 2})
    folder = SweepFolder(tmp_path / "sweep")
    space = {"search": "grid", "parameters": {"objective.alpha": {"choice": [0.1, 0.2]}}}
    write_atomic(folder.recipe, dump_yaml(recipe.resolved()))
    write_atomic(folder.space, dump_yaml(space))
    former_run(recipe, folder.trial("trial-0"))
    with pytest.raises(CheckpointError, match=r"trial-0: was started when .*--set data\.batch_size=128$"):
        resume(folder.path)


def test_a_cross_validation_with_runs_of_former_batches_does_not_go_on(
    tiny_recipe: Any, digits: dict[str, Path], tmp_path: Path
) -> None:
    recipe, folder = tiny_recipe(workers={"num_workers": 2}), CrossvalFolder(tmp_path)
    planned = PlannedRun("digits", 0, 0, recipe, ShardSet.open(digits["target"]))
    assert not planned.is_done(folder)
    former_run(recipe, planned.folder(folder))
    with pytest.raises(CheckpointError, match=r"fold-1_seed-0: was started when .*data\.batch_size=128$"):
        planned.is_done(folder)


@pytest.mark.parametrize("schedule", [TRAINED, FROZEN, {"kind": "head_only"}], ids=str)
def test_what_is_compiled_cannot_see_the_whole_batch(tiny_recipe: Any, schedule: dict[str, Any]) -> None:
    """So a compiled network whose BatchNorm trains is refused before anything starts, and never chosen."""
    settings = {"schedule": schedule, "workers": {"num_workers": 2}, "compute": {"compile": True}}
    recipe, alone = tiny_recipe(**settings), tiny_recipe(**{**settings, "workers": {"num_workers": 0}})
    model = build_model(recipe.model, {"target": list("ab")}, image_size=8, seed=0)
    assert plan_phases(alone, model)
    if schedule is not TRAINED:
        assert plan_phases(recipe, model)
        return
    with pytest.raises(RecipeError, match=r"^compute\.compile: BatchNorm and dropout.*num_workers=0"):
        plan_phases(recipe, model)
    either = tiny_recipe(**{**settings, "compute": {"compile": "auto"}})
    assert not choose_compute(either, model, Worker()).compile
