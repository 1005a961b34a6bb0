"""The steps of free adversarial training: each backward pass serves the weights and the perturbation."""

from typing import Any

import torch
from torch import Tensor

from temper.attacks.norms import project, steepest
from temper.data import Batch
from temper.hardening import FreeTraining
from temper.training.losses import Losses, StepImages
from temper.training.state import Passes
from temper.training.step import TrainStep


class FreeStep(TrainStep):
    """Each batch ``replays`` times. Shafahi et al. 2019, arXiv:1904.12843."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._perturbation: Tensor | None = None

    def __call__(
        self, batches: dict[str, Batch], epoch: int, step: int, progress: float
    ) -> tuple[Losses, Passes]:
        adversary = self.adversary(progress)
        if not isinstance(adversary, FreeTraining):
            return super().__call__(batches, epoch, step, progress)
        images = self.prepare(batches, epoch, step)
        if step == 0:
            self.first_images, self._perturbation = images, None
        passes = Passes()
        losses: Losses = {}
        for _ in range(adversary.replays):
            losses, replay = self._replay(images, adversary, epoch, step, progress)
            passes += replay
        return losses, passes

    def _replay(
        self, images: StepImages, adversary: FreeTraining, epoch: int, step: int, progress: float
    ) -> tuple[Losses, Passes]:
        clean = images.clean["target"]
        perturbation = self._carried(clean)
        perturbed = project(adversary.norm, clean + perturbation, clean, adversary.eps).requires_grad_()
        self.train_mode()
        losses = self.backward(
            StepImages(images.clean, images.labels, {"target": perturbed}), adversary, progress
        )
        assert perturbed.grad is not None
        step_size = adversary.step_size or adversary.eps
        moved = perturbed.detach() + step_size * steepest(adversary.norm, perturbed.grad, perturbed.detach())
        assert self._perturbation is not None
        self._perturbation[: len(clean)] = project(adversary.norm, moved, clean, adversary.eps) - clean
        self.update(epoch, step, progress)
        num_images = sum(len(part) for part in images.clean.values())
        return losses, Passes(forward=num_images, backward=num_images)

    def _carried(self, clean: Tensor) -> Tensor:
        """The perturbation so far (B,3,H,W); a batch larger than those before begins at 0 in its new rows."""
        known = self._perturbation
        if known is None or len(known) < len(clean):
            grown = torch.zeros_like(clean)
            if known is not None:
                grown[: len(known)] = known
            self._perturbation = known = grown
        return known[: len(clean)]
