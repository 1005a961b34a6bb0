"""Adversarial examples of a step's images, and what they cost."""

from collections.abc import Mapping

import torch
from torch import Tensor

from temper.attacks import attack_mode
from temper.hardening import Adversary
from temper.models import TaskModel
from temper.seeds import derive_seed
from temper.training.state import Passes


def attack_tasks(
    model: TaskModel,
    adversary: Adversary,
    images: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    seed: int,
) -> tuple[dict[str, Tensor], Passes]:
    """Adversarial examples of the attacked tasks, made on the unwrapped model, and the passes they took."""
    attacked: dict[str, Tensor] = {}
    passes = Passes()
    with attack_mode(model, adversary.attack_batch_norm):
        for task in adversary.attacked_tasks:
            counted = CountedLogits(model, task)
            # The target's own seed is the step's: attacking the source as well does not change it.
            own = seed if task == "target" else derive_seed(seed, task)
            generator = torch.Generator(images[task].device).manual_seed(own)
            attacked[task] = adversary.perturb(counted, images[task], labels[task], generator)
            passes += Passes(forward=counted.num_forward, backward=counted.num_backward)
    return attacked, passes


class CountedLogits:
    """Logits of a task, counting the images that go forward and whose gradients come back."""

    def __init__(self, model: TaskModel, task: str) -> None:
        self._model, self._task = model, task
        self.num_forward = 0
        self.num_backward = 0

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self._model(images, self._task)
        self.num_forward += len(images)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.num_backward += len(gradient)
