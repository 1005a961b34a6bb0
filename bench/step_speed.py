"""Our training step against a bare PyTorch loop of the same network, data and attack."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from temper.cluster.feeds import build_feed, decode_splits, open_data
from temper.data import write_shards
from temper.digits import write_digits
from temper.models import TaskModel, build_model, set_trainable
from temper.recipe import Recipe, load_recipe
from temper.training import Worker, plan_phases
from temper.training.feed import Feed, paired_batches
from temper.training.step import TrainStep

TINY = Path(__file__).parents[1] / "jobs/recipes/tiny.yaml"
NUM_STEPS, IMAGE_SIZE, ALPHA = 10, 32, 0.3
EPS, PGD_STEPS = 0.1, 3


def step_speed(folder: Path) -> Iterator[tuple[str, str, str, Any, Any]]:
    """(name, unit, goal, ours, peer) for training without and with PGD."""
    shards = {}
    for task, images in zip(("source", "target"), write_digits(folder / "images"), strict=True):
        shards[f"data.{task}"] = str(folder / task)
        write_shards(images, folder / task)
    pgd = {"kind": "pgd", "eps": EPS, "steps": PGD_STEPS}
    for name, adversary in (("training step", None), (f"training step, PGD-{PGD_STEPS}", pgd)):
        overrides = {
            **shards,
            "objective.alpha": ALPHA,
            "objective.adversary": adversary,
            "data.image_size": IMAGE_SIZE,
        }
        recipe = load_recipe(TINY, overrides)
        data = open_data(recipe)
        feed = build_feed(recipe, data, decode_splits(recipe, data, with_ray=False))
        yield name, "steps/s", ">= 0.91", Ours(recipe, feed), Bare(recipe, feed)


def feature_speed(folder: Path) -> Iterator[tuple[str, str, str, Any, Any]]:
    """(name, unit, goal, ours, peer) for a head-only step on cached features, and on recomputed ones."""
    shards = {f"data.{task}": str(folder / task) for task in ("source", "target")}
    overrides = {
        **shards,
        "objective.alpha": ALPHA,
        "objective.adversary": None,
        "schedule.kind": "head_only",
        "data.image_size": IMAGE_SIZE,
        "model.backbone": "resnet20",
    }
    recipe = load_recipe(TINY, overrides)
    data = open_data(recipe)
    feed = build_feed(recipe, data, decode_splits(recipe, data, with_ray=False))
    yield "head-only step, cached", "steps/s", ">= 50", Ours(recipe, feed), Recomputed(recipe, feed)


def _model(recipe: Recipe, feed: Feed) -> TaskModel:
    return build_model(recipe.model, feed.classes, image_size=IMAGE_SIZE, seed=0)


def _batches(feed: Feed) -> list[Any]:
    whole = [batch for batch in paired_batches(feed, 0, True) if len(batch["target"].labels) == 64]
    return [whole[number % len(whole)] for number in range(NUM_STEPS)]


class Ours:
    """``TrainStep`` as ``temper train`` drives it."""

    def __init__(self, recipe: Recipe, feed: Feed) -> None:
        model = _model(recipe, feed)
        plan = plan_phases(recipe, model)[0]
        optimizer = recipe.optim.build(set_trainable(model, plan.phase.trainable))
        self._step = TrainStep(recipe, feed, plan, model, optimizer, Worker())
        self._batches = _batches(feed)

    def __call__(self) -> float:
        started = time.perf_counter()
        for number, batch in enumerate(self._batches):
            self._step(batch, 0, number, 0.0)
        return NUM_STEPS / (time.perf_counter() - started)


class Recomputed(Ours):
    """The same steps with the frozen body run again in each, without gradients."""

    def __init__(self, recipe: Recipe, feed: Feed) -> None:
        super().__init__(recipe, feed)
        self._step.forget_features()


class Bare:
    """What one would write by hand: no counting, no records, no phases."""

    def __init__(self, recipe: Recipe, feed: Feed) -> None:
        self._is_attacked = recipe.objective.adversary is not None
        self._model = _model(recipe, feed)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self._batches = _batches(feed)

    def __call__(self) -> float:
        started = time.perf_counter()
        for batch in self._batches:
            target, source = (_floats(batch[task].images) for task in ("target", "source"))
            labels, source_labels = batch["target"].labels, batch["source"].labels
            if self._is_attacked:
                target = self._perturb(target, labels)
            self._model.train()
            logits = self._model({"target": target, "source": source})
            loss = F.cross_entropy(logits["target"], labels)
            loss = loss + ALPHA * F.cross_entropy(logits["source"], source_labels)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
        return NUM_STEPS / (time.perf_counter() - started)

    def _perturb(self, images: Tensor, labels: Tensor) -> Tensor:
        self._model.eval().requires_grad_(False)
        step_size = 2.5 * EPS / PGD_STEPS
        adversarial = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(PGD_STEPS):
            adversarial = adversarial.detach().requires_grad_()
            loss = F.cross_entropy(self._model(adversarial), labels)
            (gradient,) = torch.autograd.grad(loss, adversarial)
            adversarial = adversarial.detach() + step_size * gradient.sign()
            adversarial = (images + (adversarial - images).clamp(-EPS, EPS)).clamp(0, 1)
        self._model.requires_grad_(True)
        return adversarial.detach()


def _floats(images: Tensor) -> Tensor:
    return images.float().div_(255).to(memory_format=torch.channels_last)
