"""Our training step against a bare PyTorch loop of the same network, data and attack; and cached features.

The bare loop is written as well as one knows: two tasks, parameters held still in the attack, gradients of
the images only, channels_last.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clock import cpu_seconds
from digit_tasks import write_tasks
from row import Row
from temper.cluster.feeds import build_feed, decode_splits, open_data
from temper.models import TaskModel, build_model, set_trainable
from temper.recipe import Recipe, load_recipe
from temper.training import Worker, plan_phases
from temper.training.feed import Feed, paired_batches
from temper.training.step import TrainStep

TINY = Path(__file__).parents[1] / "jobs/recipes/tiny.yaml"
NUM_STEPS, IMAGE_SIZE, ALPHA = 10, 32, 0.3
EPS, PGD_STEPS = 0.1, 3


def rows(folder: Path) -> Iterator[Row]:
    """Training without and with PGD; a head on features that are cached, and on recomputed ones."""
    settings = {**write_tasks(folder), "objective.alpha": ALPHA, "data.image_size": IMAGE_SIZE}
    pgd = {"kind": "pgd", "eps": EPS, "steps": PGD_STEPS}
    for name, adversary in (("training step", None), (f"training step, PGD-{PGD_STEPS}", pgd)):
        recipe, feed = _opened({**settings, "objective.adversary": adversary})
        name = f"{name}: two tasks, resnet8 at {IMAGE_SIZE} px"
        yield Row(name, "a bare loop", "steps/CPU s", ">= 0.91", Ours(recipe, feed), Bare(recipe, feed))
    head = {"objective.adversary": None, "schedule.kind": "head_only", "model.backbone": "resnet20"}
    recipe, feed = _opened({**settings, **head})
    ours, peer = Ours(recipe, feed), Recomputed(recipe, feed)
    name = f"head-only step on cached features: resnet20 at {IMAGE_SIZE} px"
    yield Row(name, "recomputed features", "steps/CPU s", ">= 50", ours, peer)


def _opened(settings: dict[str, Any]) -> tuple[Recipe, Feed]:
    recipe = load_recipe(TINY, settings)
    data = open_data(recipe)
    return recipe, build_feed(recipe, data, decode_splits(recipe, data, with_ray=False))


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
        return NUM_STEPS / cpu_seconds(self._round)

    def _round(self) -> None:
        for number, batch in enumerate(self._batches):
            self._step(batch, 0, number, 0.0)


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
        return NUM_STEPS / cpu_seconds(self._round)

    def _round(self) -> None:
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
