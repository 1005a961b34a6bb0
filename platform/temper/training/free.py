"""The steps of free adversarial training: each backward pass serves the weights and the perturbation."""

from typing import Any

import torch
from torch import Tensor

from temper.attacks.norms import project, steepest
from temper.batches import Batch
from temper.hardening import FreeTraining
from temper.training.losses import Losses, StepImages
from temper.training.state import Passes
from temper.training.step import TrainStep


class FreeStep(TrainStep):
    """Each batch ``replays`` times. Shafahi et al. 2019, arXiv:1904.12843."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._perturbations: dict[int, Tensor] = {}
        """Of each of our shares (B,3,H,W)."""

    def __call__(
        self, batches: dict[str, Batch], epoch: int, step: int, progress: float
    ) -> tuple[Losses, Passes]:
        adversary = self.adversary(progress)
        if not isinstance(adversary, FreeTraining):
            return super().__call__(batches, epoch, step, progress)
        images = self.prepare(batches, epoch, step)
        if step == 0:
            self.first_images, self._perturbations = images, {}
        passes = Passes()
        losses: Losses = {}
        for _ in range(adversary.replays):
            losses, replay = self._replay(images, adversary, epoch, step, progress)
            passes += replay
        return losses, passes

    def state(self) -> dict[str, Tensor]:
        if not self._perturbations:
            return {}
        own = next(iter(self._perturbations.values()))
        whole = own.new_zeros((self.feed.num_shares, *own.shape))
        for share, perturbation in self._perturbations.items():
            whole[share] = perturbation
        return {"perturbations": self.worker.sum(whole)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        whole = state.get("perturbations")
        if whole is not None:
            self._perturbations = {share: whole[share].to(self.worker.device) for share in self.shares}

    def _replay(
        self, images: list[StepImages], adversary: FreeTraining, epoch: int, step: int, progress: float
    ) -> tuple[Losses, Passes]:
        perturbed = []
        for share, own in zip(self.shares, images, strict=True):
            clean = own.clean["target"]
            moved = clean + self._carried(share, clean)
            perturbed.append(project(adversary.norm, moved, clean, adversary.eps).requires_grad_())
        self.train_mode()
        attacked = [
            StepImages(own.clean, own.labels, {"target": one})
            for own, one in zip(images, perturbed, strict=True)
        ]
        losses = self.backward(attacked, adversary, epoch, step, progress)
        for share, own, one in zip(self.shares, images, perturbed, strict=True):
            self._move(share, own.clean["target"], one, adversary)
        self.update(epoch, step, progress)
        num_images = sum(len(part) for own in images for part in own.clean.values())
        return losses, Passes(forward=num_images, backward=num_images)

    def _move(self, share: int, clean: Tensor, perturbed: Tensor, adversary: FreeTraining) -> None:
        """Carry the perturbation of ``share`` a step up the gradient that has come back."""
        assert perturbed.grad is not None
        step_size = adversary.step_size or adversary.eps
        moved = perturbed.detach() + step_size * steepest(adversary.norm, perturbed.grad, perturbed.detach())
        carried = project(adversary.norm, moved, clean, adversary.eps) - clean
        self._perturbations[share][: len(clean)] = carried

    def _carried(self, share: int, clean: Tensor) -> Tensor:
        """The perturbation so far (B,3,H,W); a batch larger than those before begins at 0 in its new rows."""
        known = self._perturbations.get(share)
        if known is None or len(known) < len(clean):
            grown = torch.zeros_like(clean)
            if known is not None:
                grown[: len(known)] = known
            self._perturbations[share] = known = grown
        return known[: len(clean)]
