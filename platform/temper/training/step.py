"""One optimizer step: augment, attack, descend."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from temper.attacks import attack_mode
from temper.data import Batch
from temper.models import TaskModel, train_mode
from temper.recipe import Recipe
from temper.schedules import Phase
from temper.seeds import derive_seed
from temper.training.feed import Feed, to_device
from temper.training.state import Passes
from temper.training.worker import Worker


@dataclass
class TrainStep:
    """One optimizer step: augment, attack, descend."""

    recipe: Recipe
    feed: Feed
    phase: Phase
    model: TaskModel
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    worker: Worker

    def __post_init__(self) -> None:
        objective = self.recipe.objective
        weights = objective.target_class_weights(self.feed.class_counts)
        self._class_weights = None if weights is None else weights.to(self.worker.device)

    def __call__(
        self, batches: dict[str, Batch], epoch: int, step: int, progress: float
    ) -> tuple[dict[str, Tensor], Passes]:
        """Losses as scalars on the device, not yet waited for, and the passes that the step took."""
        seed = partial(derive_seed, self.recipe.seed)
        place = (epoch, step, self.worker.rank)
        images: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        for task, batch in batches.items():
            images[task], labels[task] = to_device(
                batch, self.recipe.data.augment, self.worker.device, seed("augment", task, *place)
            )
        images["target"], passes = self._attack(images["target"], labels["target"], seed("attack", *place))

        train_mode(self.model)
        losses = self.recipe.objective.loss(self.wrapped(images), labels, self._class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        self._update(progress)

        num_images = sum(len(task_images) for task_images in images.values())
        return {name: value.detach() for name, value in losses.items()}, passes + Passes(
            forward=num_images, backward=num_images
        )

    def _attack(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Passes]:
        """The adversarial examples of the target images, made on the unwrapped model in eval statistics."""
        adversary = self.recipe.objective.adversary
        if adversary is None or adversary.eps == 0:
            return images, Passes()
        counted = CountedLogits(self.model)
        generator = torch.Generator(self.worker.device).manual_seed(seed)
        with attack_mode(self.model):
            adversarial = adversary.perturb(counted, images, labels, generator)
        return adversarial, Passes(forward=counted.num_forward, backward=counted.num_backward)

    def _update(self, progress: float) -> None:
        optim = self.recipe.optim
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr_at(progress) * self.phase.lr_factor
            if optim.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(group["params"], optim.max_grad_norm)
        self.optimizer.step()


class CountedLogits:
    """Logits of the target task, counting the images that go forward and whose gradients come back."""

    def __init__(self, model: TaskModel) -> None:
        self._model = model
        self.num_forward = 0
        self.num_backward = 0

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self._model(images)
        self.num_forward += len(images)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.num_backward += len(gradient)
