"""Our training step against a bare PyTorch loop of the same network, data and attack; and the linear probe.

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
from temper.cluster.datasets import build_train_data, decode_splits
from temper.models import TaskModel, build_model, set_trainable
from temper.recipe import Recipe, load_recipe
from temper.run.open_data import open_data
from temper.training import Worker, plan_phases
from temper.training.data import TrainData, paired_batches
from temper.training.plan import Moment
from temper.training.probe import solve_heads
from temper.training.step import TrainStep

TINY = Path(__file__).parents[1] / "jobs/recipes/tiny.yaml"
NUM_STEPS, IMAGE_SIZE, ALPHA = 10, 32, 0.3
EPS, PGD_STEPS = 0.1, 3
PROBE_EPOCHS = 10
"""Of SGD on the head, which the exact probe saves."""


def rows(folder: Path) -> Iterator[Row]:
    """Training without and with PGD; a head that is solved, and one that is trained by steps."""
    settings = {**write_tasks(folder), "objective.alpha": ALPHA, "data.image_size": IMAGE_SIZE}
    pgd = {"kind": "pgd", "eps": EPS, "steps": PGD_STEPS}
    for name, adversary in (("training step", None), (f"training step, PGD-{PGD_STEPS}", pgd)):
        recipe, feed = _opened({**settings, "objective.adversary": adversary})
        name = f"{name}: two tasks, resnet8 at {IMAGE_SIZE} px"
        yield Row(name, "a bare loop", "steps/CPU s", ">= 0.91", Ours(recipe, feed), Bare(recipe, feed))
    head = {"objective.alpha": 0, "schedule.kind": "head_only", "model.backbone": "resnet20"}
    recipe, feed = _opened({**settings, "objective.adversary": None, **head})
    ours, peer = Solved(recipe, feed), Stepped(recipe, feed)
    name, loop = f"linear probe: resnet20 at {IMAGE_SIZE} px", f"{PROBE_EPOCHS} epochs of SGD on the head"
    yield Row(name, loop, "s", "<= 0.3", ours, peer)


def _opened(settings: dict[str, Any]) -> tuple[Recipe, TrainData]:
    recipe = load_recipe(TINY, settings)
    data = open_data(recipe)
    return recipe, build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))


def _model(recipe: Recipe, feed: TrainData) -> TaskModel:
    return build_model(recipe.model, feed.classes, image_size=IMAGE_SIZE, seed=0)


def _batches(feed: TrainData) -> list[Any]:
    whole = [batch for batch in paired_batches(feed, 0, True) if len(batch["target"].labels) == 64]
    return [whole[number % len(whole)] for number in range(NUM_STEPS)]


class Ours:
    """``TrainStep`` as ``temper train`` drives it."""

    def __init__(self, recipe: Recipe, feed: TrainData) -> None:
        model = _model(recipe, feed)
        plan = plan_phases(recipe, model)[0]
        optimizer = recipe.optim.build(set_trainable(model, plan.phase.trainable))
        self._step = TrainStep(recipe, feed, plan, model, optimizer, Worker())
        self._batches = _batches(feed)

    def __call__(self) -> float:
        return NUM_STEPS / cpu_seconds(self._round)

    def _round(self) -> None:
        for number, batch in enumerate(self._batches):
            self._step(batch, Moment(0, number, 0.0))


class Solved:
    """The probe as a run begins with it: features of each image once, and the optimum on them."""

    def __init__(self, recipe: Recipe, feed: TrainData) -> None:
        self._recipe, self._feed, self._model = recipe, feed, _model(recipe, feed)

    def __call__(self) -> float:
        return cpu_seconds(lambda: solve_heads(self._recipe, self._model, self._feed, Worker()))


class Stepped:
    """The head by steps, without gradients of the frozen body."""

    def __init__(self, recipe: Recipe, feed: TrainData) -> None:
        self._feed, self._model = feed, _model(recipe, feed)
        self._head = self._model.heads["target"]
        self._optimizer = torch.optim.SGD(self._head.parameters(), lr=0.1, momentum=0.9)

    def __call__(self) -> float:
        return cpu_seconds(self._train)

    def _train(self) -> None:
        self._model.eval()
        for epoch in range(PROBE_EPOCHS):
            for batch in self._feed.target.epoch(epoch):
                with torch.no_grad():
                    features = self._model.features(_floats(batch.images))
                loss = F.cross_entropy(self._head(features), batch.labels)
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()


class Bare:
    """What one would write by hand: no counting, no records, no phases."""

    def __init__(self, recipe: Recipe, feed: TrainData) -> None:
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
