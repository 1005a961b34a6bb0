"""What one optimizer step does under each method: against formulas written out here."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from temper.cluster.datasets import build_train_data, decode_splits
from temper.errors import RecipeError
from temper.models import StartStatistics, batch_norms, build_model, set_trainable
from temper.recipe import Recipe
from temper.run.open_data import open_data
from temper.training import Worker, plan_phases
from temper.training.data import paired_batches
from temper.training.free import FreeStep
from temper.training.perturbation import perturbed_weights
from temper.training.plan import Moment
from temper.training.start_model import StartModel
from temper.training.step import TrainStep

PGD = {"kind": "pgd", "eps": 0.1, "steps": 2}


class Bench:
    """The first phase of a recipe, ready to step."""

    def __init__(self, recipe: Recipe, phase: int = 0, kind: type[TrainStep] = TrainStep) -> None:
        data = open_data(recipe)
        self.feed = build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))
        self.model = build_model(recipe.model, data.classes, image_size=recipe.data.image_size, seed=0)
        plans = plan_phases(recipe, self.model)
        self.plan = plans[phase]
        self.start = StartModel.of(self.model, recipe, plans)
        trainable = set_trainable(self.model, self.plan.phase.trainable, recipe.objective.trained_heads)
        optimizer = recipe.optim.build(trainable, self.plan.lr_factors)
        self.step = kind(recipe, self.feed, self.plan, self.model, optimizer, Worker(), self.start)
        self.batches = list(paired_batches(self.feed, 0, recipe.objective.uses_source))

    def run(self, number: int = 0, epoch: int = 0, progress: float = 0.0) -> Any:
        return self.step(self.batches[number], Moment(epoch, number, progress))

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


# --- AWP --------------------------------------------------------------------------------------


def test_awp_moves_by_gamma_of_each_norm_up_the_gradient_and_back_bit_for_bit(model: Any, batch: Any) -> None:
    images, labels = batch
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss() -> torch.Tensor:
        return F.cross_entropy(model(images), labels)

    start = float(loss().detach())
    model.load_state_dict(before)
    with perturbed_weights(model, [loss], 0.01, Worker()):
        for name, parameter in model.named_parameters():
            moved = (parameter.detach() - before[name]).norm()
            if parameter.dim() <= 1 or name.startswith("heads.source"):
                assert moved == 0, name
            else:
                assert moved.item() == pytest.approx(0.01 * before[name].norm().item(), rel=1e-3), name
        assert not changed(before, dict(model.named_buffers()))
        assert loss() > start
    unmoved = {name for name, _ in model.named_parameters()}
    assert not changed(before, {n: v for n, v in model.state_dict().items() if n in unmoved})


@pytest.mark.parametrize("kind", ["pgd", "trades", "mart"])
def test_a_step_with_awp_differs_and_starts_late_where_asked(tiny_recipe: Any, kind: str) -> None:
    def after(awp: Any, progress: float) -> dict[str, torch.Tensor]:
        adversary = {"kind": kind, "eps": 0.1, "steps": 2, "awp": awp}
        bench = Bench(tiny_recipe(objective__adversary=adversary))
        bench.run(progress=progress)
        return bench.weights()

    plain = after(None, 0.0)
    assert changed(plain, after({"gamma": 0.01}, 0.0))
    late = {"gamma": 0.01, "start_frac": 0.5}
    assert not changed(plain, after(late, 0.0))
    assert changed(after(None, 0.6), after(late, 0.6))


# --- BatchNorm --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["train", "frozen", "twin"])
def test_batch_norm_policies(tiny_recipe: Any, policy: str) -> None:
    bench = Bench(tiny_recipe(schedule={"kind": "full", "batch_norm": policy}, objective__adversary=PGD))
    before = bench.weights()
    losses, _ = bench.run()
    moved = changed(before, bench.weights())
    statistics = {name for name in moved if "running" in name}
    assert bool(statistics) == (policy != "frozen")
    assert {n.replace("running_mean", "weight") for n in statistics if "mean" in n} <= moved
    assert ("twin/loss" in losses) == (policy == "twin")


def test_the_twin_answers_from_the_statistics_of_the_start(tiny_recipe: Any) -> None:
    """Its loss by hand: the model in eval mode with its start's statistics, and the mean of both."""
    recipe = tiny_recipe(schedule={"kind": "twins", "twin_weight": 3.0}, objective__alpha=0.0)
    recipe = recipe.model_copy(update={"objective": recipe.objective.model_copy(update={"adversary": None})})
    bench = Bench(recipe)
    for layer in batch_norms(bench.model):
        layer.running_mean.add_(1.0)
    (images,) = bench.step.prepare(bench.batches[0], 0, 0)
    bench.step.train_mode()
    adapting = F.cross_entropy(bench.model(images.clean["target"]), images.labels["target"])
    start = build_model(recipe.model, bench.feed.classes, image_size=8, seed=0).eval()
    twin = F.cross_entropy(start(images.clean["target"]), images.labels["target"])
    losses, _ = bench.run()
    assert losses["target/loss"].item() == pytest.approx(adapting.item(), rel=1e-5)
    assert losses["twin/loss"].item() == pytest.approx(twin.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((adapting + 3 * twin).item() / 4, rel=1e-5)
    assert isinstance(bench.start.statistics, StartStatistics)


def test_a_twin_needs_batch_norm_and_no_free_attack(tiny_recipe: Any) -> None:
    free = {"kind": "free", "eps": 0.1}
    with pytest.raises(RecipeError, match="batch_norm 'twin' does not go with the adversary 'free'"):
        Bench(tiny_recipe(schedule={"kind": "twins"}, objective__adversary=free))
    with pytest.raises(RecipeError, match="needs BatchNorm, which small_vit does not have; use 'train'"):
        Bench(tiny_recipe(schedule={"kind": "twins"}, model__backbone="small_vit"))


# --- source terms -----------------------------------------------------------------------------


def test_l2sp_pulls_the_backbone_to_its_start_and_not_to_the_origin(tiny_recipe: Any) -> None:
    term = {"kind": "l2sp", "head_decay": 0.1}
    recipe = tiny_recipe(objective__source_term=term, objective__alpha=2.0, optim__weight_decay=0.0,
                         model__weights="start", objective__adversary=None)  # fmt: skip
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": None})})
    bench = Bench(recipe)
    assert set(bench.batches[0]) == {"target"}
    first, _ = bench.run(0)
    assert first["l2sp/loss"].item() == 0
    before = {name: p.detach().clone() for name, p in bench.model.named_parameters()}
    second, _ = bench.run(1)
    assert bench.start.model is not None
    distance = sum(
        0.5 * float((before[name] - start).square().sum())
        for name, start in bench.start.model.named_parameters()
        if name.startswith("backbone.")
    )
    head = sum(float(p.square().sum()) for n, p in before.items() if n.startswith("heads.target"))
    assert second["l2sp/loss"].item() == pytest.approx(distance, rel=1e-4)
    total = second["target/loss"].item() + 2.0 * distance + 0.5 * 0.1 * head
    assert second["loss"].item() == pytest.approx(total, rel=1e-4)


def test_lwf_keeps_the_source_head_answering_as_the_start_does(tiny_recipe: Any) -> None:
    recipe = tiny_recipe(objective__source_term={"kind": "lwf"}, model__weights="start", objective__alpha=1.0)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": None})})
    bench = Bench(recipe)
    assert set(bench.batches[0]) == {"target"}
    assert recipe.objective.trained_heads == ("target", "source")
    before = bench.weights()
    losses, _ = bench.run()
    assert losses["lwf/loss"] > 0
    assert "heads.source.weight" in changed(before, bench.weights())
    assert bench.start.model is not None
    assert not changed(before, bench.start.model.state_dict())
    assert losses["loss"].item() == pytest.approx(
        (losses["target/loss"] + losses["lwf/loss"]).item(), rel=1e-5
    )


@pytest.mark.parametrize("tasks", ["target", "source", "both"])
@pytest.mark.parametrize("kind", ["pgd", "trades"])
def test_attacks_reach_the_tasks_that_are_named(tiny_recipe: Any, kind: str, tasks: str) -> None:
    adversary = {"kind": kind, "eps": 0.1, "steps": 2, "tasks": tasks}
    clean = {"kind": "pgd", "eps": 0.0}
    still = {"kind": "full", "batch_norm": "frozen"}  # or BatchNorm would tell one task of the other
    found, _ = Bench(tiny_recipe(objective__adversary=adversary, schedule=still)).run()
    unattacked, _ = Bench(tiny_recipe(objective__adversary=clean, schedule=still)).run()
    for task in ("target", "source"):
        raised = found[f"{task}/loss"] > unattacked[f"{task}/loss"] + 1e-4
        assert raised == (tasks in (task, "both")), task


# --- free -------------------------------------------------------------------------------------


def test_free_steps_once_per_replay_and_carries_its_perturbation(tiny_recipe: Any) -> None:
    adversary = {"kind": "free", "eps": 0.1, "replays": 3, "step_size": 0.04}
    bench = Bench(tiny_recipe(objective__adversary=adversary), kind=FreeStep)
    steps: list[int] = []
    bench.step.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    _, passes = bench.run(0)
    assert len(steps) == 3
    assert passes.forward == passes.backward == 3 * (64 + 64)
    carried = bench.step.state()["perturbations"]
    assert 0 < carried.abs().max() <= 0.1 + 1e-6
    bench.run(1)
    assert not torch.equal(carried, bench.step.state()["perturbations"])
    bench.run(0, epoch=1)
    assert bench.step.state()["perturbations"].abs().max() <= 0.1 + 1e-6


# --- a head alone -----------------------------------------------------------------------------

CLEAN = {"objective__adversary": None, "schedule": {"kind": "head_only"}}


@pytest.mark.parametrize(
    ("overrides", "is_solved"),
    [
        ({}, True),
        ({"data__augment": {}}, True),
        ({"data__mixing": {"kind": "mixup"}}, True),
        ({"schedule": {"kind": "gradual"}}, True),
        ({"schedule": {"kind": "head_only", "batch_norm": "twin"}}, True),
        ({"objective__adversary": PGD}, False),
        ({"schedule": {"kind": "roli"}, "objective__adversary": PGD}, False),
        ({"schedule": {"kind": "last_k", "k": 2}}, False),
    ],
    ids=str,
)
def test_a_clean_head_alone_is_solved(tiny_recipe: Any, overrides: Any, is_solved: bool) -> None:
    assert Bench(tiny_recipe(**{**CLEAN, **overrides})).plan.is_solved == is_solved


def test_a_head_with_losses_of_its_own_is_trained_by_steps_later_in_a_run(tiny_recipe: Any) -> None:
    phases = [{"epochs": 1}, {"epochs": 1, "groups": []}]
    for batch_norm, is_solved in (("train", True), ("twin", False)):
        schedule = {"kind": "phases", "phases": phases, "batch_norm": batch_norm}
        recipe = tiny_recipe(objective__adversary=None, schedule=schedule)
        assert Bench(recipe, phase=1).plan.is_solved == is_solved


def test_a_frozen_body_runs_without_gradients(tiny_recipe: Any) -> None:
    bench = Bench(tiny_recipe(schedule={"kind": "head_only"}, objective__adversary=PGD))
    (images,) = bench.step.prepare(bench.batches[0], 0, 0)
    bench.step.train_mode()
    assert bench.model.features(images.clean["target"]).grad_fn is None


# --- mixing, averaging, learning rates --------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "either"])
def test_mixing_shares_out_the_labels_and_repeats(tiny_recipe: Any, kind: str) -> None:
    bench = Bench(tiny_recipe(data__mixing={"kind": kind}))
    first, again, other = (bench.step.prepare(bench.batches[0], 0, step)[0] for step in (0, 0, 1))
    shares = first.labels["target"]
    assert shares.shape == (64, 5)
    assert torch.allclose(shares.sum(1), torch.ones(64))
    assert torch.equal(first.clean["target"], again.clean["target"])
    assert not torch.equal(first.clean["target"], other.clean["target"])
    assert first.labels["source"].dim() == 1
    losses, _ = bench.run()
    assert torch.isfinite(losses["loss"])


def test_rates_fall_from_the_head_down(tiny_recipe: Any) -> None:
    bench = Bench(tiny_recipe(schedule={"kind": "full", "group_decay": 2.6}))
    bench.run()
    rates = [group["lr"] for group in bench.step.optimizer.param_groups]
    assert rates == pytest.approx([0.1 / 2.6**depth for depth in range(len(rates) - 1, -1, -1)])
