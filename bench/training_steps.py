"""Both sides of a benchmark of training steps: ``TrainStep``, and the loop that one would write by hand."""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clock import cpu_seconds
from plain_resnet import plain_backbone
from temper.batches import Batch, ResidentBatches
from temper.data import Images
from temper.models import TaskModel, build_model, set_trainable
from temper.recipe import Recipe
from temper.training import Worker, plan_phases
from temper.training.data import TrainData
from temper.training.losses import Losses
from temper.training.plan import Moment
from temper.training.shares import StepImages
from temper.training.step import TrainStep

EPS, STEPS, STEP_SIZE = 8 / 255, 10, 2 / 255
"""Of Madry et al. 2018, arXiv:1706.06083, and of most papers since."""

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Model in eval mode, images (B,3,H,W) in [0,1] and labels (B,) to adversarial examples."""


@dataclass(frozen=True)
class Setting:
    """A network at a size, on digits scaled up: ten classes, one task."""

    backbone: str
    image_size: int
    batch_size: int
    num_steps: int
    """In each round."""
    dtype: torch.dtype = torch.float32
    """Of the weights; images stay as they are."""

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.backbone} at {self.image_size} px, batch {self.batch_size}"

    def recipe(self, adversary: Mapping[str, Any] | None) -> Recipe:
        """Full training at a constant rate without augmentation."""
        return Recipe.model_validate(
            {
                "name": "bench",
                "epochs": 1,
                "threat": {"norm": "linf", "eps": EPS},
                "data": {"target": "nowhere", "image_size": self.image_size, "augment": None},
                "model": {"backbone": self.backbone},
                "objective": {"alpha": 0, "adversary": adversary},
                "optim": {"lr": 0.05, "lr_schedule": "constant"},
            }
        )

    def model(self) -> TaskModel:
        """The same weights each time."""
        spec = self.recipe(None).model
        return build_model(spec, {"target": DIGITS}, image_size=self.image_size, seed=0).to(self.dtype)

    def feed(self) -> TrainData:
        """Batches of digits, grey as they are, with some noise: flat areas have no gradient to compare."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        count = self.batch_size * self.num_steps
        pixels = torch.from_numpy(bunch.images[:count] / 16).float()[:, None].repeat(1, 3, 1, 1)
        pixels = F.interpolate(pixels, (self.image_size, self.image_size), mode="bilinear")
        pixels += 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        images = Images(
            (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
            bunch.target[:count],
            torch.arange(count).numpy(),
        )
        batches = ResidentBatches(images, batch_size=self.batch_size, seed=0)
        return TrainData({"target": DIGITS}, {}, [1] * 10, batches, None, {})


DIGITS = [str(digit) for digit in range(10)]


def pgd(*, random_start: bool = True) -> dict[str, Any]:
    """The adversary of a recipe."""
    return {"kind": "pgd", "eps": EPS, "steps": STEPS, "step_size": STEP_SIZE, "random_start": random_start}


class RecordedStep(TrainStep):
    """Remembers the adversarial examples of its latest step."""

    examples: Tensor

    def backward(self, images: list[StepImages], *settings: Any) -> Losses:
        self.examples = images[0].attacked.get("target", images[0].clean["target"])
        return super().backward(images, *settings)


class Ours:
    """``TrainStep`` as ``temper train`` drives it."""

    def __init__(self, setting: Setting, adversary: Mapping[str, Any] | None) -> None:
        recipe, feed = setting.recipe(adversary), setting.feed()
        self.model = setting.model()
        plan = plan_phases(recipe, self.model)[0]
        optimizer = recipe.optim.build(set_trainable(self.model, plan.phase.trainable, ("target",)))
        self.step = RecordedStep(recipe, feed, plan, self.model, optimizer, Worker())
        self.batches = [{"target": batch} for batch in feed.target.epoch(0)]

    def __call__(self) -> float:
        """Seconds per step."""
        return cpu_seconds(lambda: deque(self.watched(), maxlen=0)) / len(self.batches)

    def watched(self) -> Iterator[tuple[float, Tensor]]:
        """The loss and the adversarial examples of each step of a round."""
        for number, batch in enumerate(self.batches):
            losses, _ = self.step(batch, Moment(0, number, 0.0))
            yield float(losses["loss"]), self.step.examples


class PlainModel(nn.Module):
    """A network as its user would write it: the same weights, ordinary memory, normalization inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: TaskModel, backbone: str) -> None:
        super().__init__()
        own = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", own.mean)
        self.register_buffer("std", own.std)
        self.backbone, self.head = plain_backbone(backbone, own.backbone), own.heads["target"]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone((images - self.mean) / self.std))
        return logits


class Bare:
    """The loop by hand around ``attack``: no counting, no records, no phases."""

    def __init__(self, setting: Setting, attack: Attack | None) -> None:
        self.model = PlainModel(setting.model(), setting.backbone)
        self._attack = attack
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.batches = list(setting.feed().target.epoch(0))

    def __call__(self) -> float:
        """Seconds per step."""
        return cpu_seconds(lambda: deque(self.watched(), maxlen=0)) / len(self.batches)

    def watched(self) -> Iterator[tuple[float, Tensor]]:
        """The loss and the adversarial examples of each step of a round."""
        for batch in self.batches:
            loss, images = self._step(batch)
            yield float(loss), images

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = batch.images.float() / 255, batch.labels
        if self._attack is not None:
            self.model.eval()
            images = self._attack(self.model, images, labels)
        self.model.train()
        loss = F.cross_entropy(self.model(images), labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach(), images
