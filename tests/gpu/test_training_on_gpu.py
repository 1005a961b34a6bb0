"""Training on a GPU: the same seed gives the same bits, with graphs and without, whole and interrupted."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from temper.batches import Batch, ResidentBatches
from temper.data import Images
from temper.evaluation import CascadePlan, EvaluationPlan, evaluate_images, suite_for
from temper.models import ModelSpec, build_model, set_trainable
from temper.optim import OptimSpec
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.spec import Threat
from temper.tracking import JsonlTracker
from temper.training import (
    TrainData,
    TrainState,
    Worker,
    adversaries,
    plan_phases,
    read_state,
    step,
    train,
)
from temper.training.plan import Moment
from temper.training.prefetch import prefetched
from temper.training.step import TrainStep

Runs = Callable[..., TrainState]
PARTS: dict[str, dict[str, Any]] = {
    "pgd": {},
    "fp32": {"compute": {"precision": "fp32"}},
    "trades with awp": {
        "objective": {"adversary": {"kind": "trades", "eps": 8 / 255, "steps": 2, "awp": {}}}
    },
    "preact, adamw": {
        "model": {"backbone": "preact_resnet18"}, "optim": {"kind": "adamw", "lr": 0.001, "ema_decay": 0.9}
    },
    "small_vit": {"model": {"backbone": "small_vit"}},
    "clean": {"objective": {"adversary": None}},
}  # fmt: skip


@pytest.fixture
def trained(feed_of: Callable[[Recipe], TrainData], cuda: torch.device) -> Runs:
    def run(recipe: Recipe, folder: Path, feed: TrainData | None = None) -> TrainState:
        runs = RunFolder(folder)
        tracker = JsonlTracker(runs.metrics)
        return train(recipe, runs, feed or feed_of(recipe), worker=Worker(cuda), tracker=tracker)

    return run


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(next(RunFolder(folder).last.glob("*.model.safetensors")))


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("part", PARTS)
def test_the_same_seed_gives_the_same_weights(
    recipe_of: Callable[..., Recipe],
    trained: Runs,
    tmp_path: Path,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_of(**PARTS[part])
    state = trained(recipe, tmp_path / "one")
    assert state.compute is not None
    assert state.compute.precision == ("fp32" if part == "fp32" else "bf16")
    trained(recipe, tmp_path / "two")
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    monkeypatch.setattr(adversaries, "replayed_model", lambda *_: None)
    monkeypatch.setattr(step, "replayed_features", lambda *_: None)
    trained(recipe, tmp_path / "without graphs")
    assert_same_weights(tmp_path / "one", tmp_path / "without graphs")


class Failing(ResidentBatches):
    def __init__(self, batches: ResidentBatches) -> None:
        vars(self).update(vars(batches))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, first), first):
            if (epoch, number) == (1, 2):
                raise InterruptedError
            yield batch


def test_an_interrupted_run_ends_with_the_same_weights(
    recipe_of: Callable[..., Recipe], trained: Runs, feed_of: Callable[[Recipe], TrainData], tmp_path: Path
) -> None:
    recipe = recipe_of()
    trained(recipe, tmp_path / "whole")
    feed = feed_of(recipe)
    assert isinstance(feed.target, ResidentBatches)
    with pytest.raises(InterruptedError):
        trained(recipe, tmp_path / "cut", replace(feed, target=Failing(feed.target)))
    assert read_state(RunFolder(tmp_path / "cut").last).next_epoch == 1
    trained(recipe, tmp_path / "cut")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_a_step_never_waits_for_the_gpu(
    recipe_of: Callable[..., Recipe], feed_of: Callable[[Recipe], TrainData], cuda: torch.device
) -> None:
    """From the second on; the first records, and looks at what it recorded."""
    recipe = recipe_of()
    feed = feed_of(recipe)
    model = build_model(recipe.model, feed.classes, image_size=32, seed=0).to(cuda)
    plan = plan_phases(recipe, model)[0]
    optimizer = recipe.optim.build(set_trainable(model, plan.phase.trainable, ("target",)))
    one_step = TrainStep(recipe, feed, plan, model, optimizer, Worker(cuda))
    batches = list(feed.target.epoch(0))
    one_step({"target": batches[0]}, Moment(0, 0, 0.0))
    torch.cuda.synchronize()
    ahead = prefetched(({"target": batch} for batch in batches[1:]), cuda)
    torch.cuda.set_sync_debug_mode("error")
    for number, batch in enumerate(ahead, 1):
        losses, _ = one_step(batch, Moment(0, number, 0.0))
    torch.cuda.set_sync_debug_mode("default")
    assert bool(torch.isfinite(losses["loss"]))


def test_batches_arrive_whole_while_the_gpu_is_busy(images: Images, cuda: torch.device) -> None:
    batches = list(ResidentBatches(images, batch_size=96, seed=0).epoch(0))
    big = torch.rand(4096, 4096, device=cuda)
    for received, expected in zip(
        prefetched(({"target": one} for one in batches), cuda), batches, strict=True
    ):
        one = received["target"]
        for _ in range(20):
            big = big @ big / 4096
        copied = one.images.clone()  # behind the products, while the next batch is already coming
        del one, received
        assert torch.equal(copied.cpu(), expected.images)


def test_optimizers_update_in_one_kernel_as_on_a_cpu(cuda: torch.device) -> None:
    for kind in ("sgd", "adamw"):
        ended = []
        for device in (torch.device("cpu"), cuda):
            weights = [torch.nn.Parameter(torch.linspace(-1, 1, 64, device=device)) for _ in range(3)]
            optimizer = OptimSpec(kind=kind, lr=0.1).build({"all": weights})
            assert bool(optimizer.defaults["fused"]) == (device.type == "cuda")
            for _ in range(5):
                optimizer.zero_grad()
                sum((weight**2).sum() for weight in weights).backward()  # type: ignore[union-attr]
                optimizer.step()
            ended.append([weight.detach().cpu() for weight in weights])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*ended, strict=True))


def test_fp32_is_fp32(images: Images, cuda: torch.device) -> None:
    """Logits as in float64 to six digits: with TF32, which PyTorch takes by itself, it would be three."""
    model = build_model(ModelSpec(backbone="resnet8"), {"target": ["a", "b"]}, image_size=32, seed=0).eval()
    pixels = torch.from_numpy(images.images[:64]).float() / 255
    with torch.no_grad():
        exact = model.double()(pixels.double())
        answered = model.float().to(cuda)(pixels.to(cuda)).cpu().double()
    assert (answered - exact).abs().max() < 1e-5 * exact.abs().max()


def plan_of(eps: float) -> EvaluationPlan:
    threat = Threat(norm="linf", eps=eps)
    return EvaluationPlan(main=CascadePlan(threat=threat, suite=suite_for("quick", "linf")), seed=0)


def test_attacks_and_evaluation_agree_with_the_cpu(
    recipe_of: Callable[..., Recipe], trained: Runs, images: Images, tmp_path: Path, cuda: torch.device
) -> None:
    recipe = recipe_of().model_copy(update={"epochs": 10})
    trained(recipe, tmp_path / "run")
    model = build_model(recipe.model, {"target": [str(d) for d in range(10)]}, image_size=32, seed=0)
    model.load_state_dict(weights_of(tmp_path / "run"))
    model.eval()
    robust = []
    for device in ("cpu", "cuda"):
        found = evaluate_images(
            model.to(device), images.images[:128], images.labels[:128], images.rows[:128],
            classes=[str(digit) for digit in range(10)], plan=plan_of(4 / 255), device=device,
        )  # fmt: skip
        robust.append(found.outcomes["robust"].to_numpy())
    assert 0.1 < robust[0].mean() < 1
    assert (robust[0] != robust[1]).sum() <= 2
