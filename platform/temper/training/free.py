"""The steps of free adversarial training: each backward pass serves the weights and the perturbation."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from temper.attacks import attacked_channels, in_colour
from temper.attacks.norms import project, steepest
from temper.batches import Batch
from temper.data import Part
from temper.hardening import FreeTraining
from temper.training.losses import Losses
from temper.training.plan import Moment
from temper.training.shares import StepImages
from temper.training.state import Passes
from temper.training.step import TrainStep


class FreeStep(TrainStep):
    """Each batch ``replays`` times. Shafahi et al. 2019, arXiv:1904.12843."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._perturbation: Tensor | None = None
        """Of every place in a batch (B,3,H,W), or (B,1,H,W) in grey, but up to date in our own only."""
        self._own: list[Part] = []
        """Our places; none: we know all."""

    def __call__(self, batches: dict[str, Batch], now: Moment) -> tuple[Losses, Passes]:
        adversary = self.adversary(now.progress)
        if not isinstance(adversary, FreeTraining):
            return super().__call__(batches, now)
        images = self.prepare(batches, now.epoch, now.step)
        if now.step == 0:
            self.first_images, self._perturbation, self._own = images, None, []
        self._make_room(images)
        passes = Passes()
        losses: Losses = {}
        for _ in range(adversary.replays):
            losses, replay = self._replay(images, adversary, now)
            passes += replay
        return losses, passes

    def state(self) -> dict[str, Tensor]:
        self._exchange()
        return {} if self._perturbation is None else {"perturbations": self._perturbation.clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        whole = state.get("perturbations")
        if whole is not None:
            # Former versions kept one for each share (S,B,3,H,W).
            self._perturbation, self._own = whole.flatten(0, -4).to(self.worker.device), []

    def _exchange(self) -> None:
        """Learn what the other workers carry."""
        if self._perturbation is None or not self._own:
            return
        size = self._own[0].size
        known = torch.zeros_like(self._perturbation[:size])
        for part in self._own:
            known[part.start : part.end] = self._perturbation[part.start : part.end]
        self._perturbation[:size], self._own = self.worker.sum(known), []

    def _make_room(self, images: list[StepImages]) -> None:
        """Places for ``images``: new ones begin at 0, and those of others are asked for where shares move."""
        parts = [own.parts["target"] for own in images]
        if self._own and self._own[0].size != parts[0].size:
            self._exchange()
        known, clean = self._perturbation, self._target(images[0])
        if known is None or len(known) < parts[0].size:
            grown = clean.new_zeros(parts[0].size, *clean.shape[1:])
            if known is not None:
                grown[: len(known)] = known
            self._perturbation = grown
        self._own = parts

    def _replay(
        self, images: list[StepImages], adversary: FreeTraining, now: Moment
    ) -> tuple[Losses, Passes]:
        perturbed = []
        for own in images:
            clean = self._target(own)
            moved = clean + self._carried(own) if own.weight("target") else clean
            perturbed.append(project(adversary.norm, moved, clean, adversary.eps).requires_grad_())
        self.train_mode()
        attacked = [
            replace(own, attacked={"target": in_colour(one)})
            for own, one in zip(images, perturbed, strict=True)
        ]
        losses = self.backward(attacked, adversary, now)
        for own, one in zip(images, perturbed, strict=True):
            if own.weight("target"):
                self._move(own, one, adversary)
        self.update(now)
        num_images = sum(len(part) for own in images for task, part in own.clean.items() if own.weight(task))
        return losses, Passes(forward=num_images, backward=num_images)

    def _move(self, own: StepImages, perturbed: Tensor, adversary: FreeTraining) -> None:
        """Carry the perturbation of a share a step up the gradient that has come back."""
        assert perturbed.grad is not None
        clean = self._target(own)
        step_size = adversary.step_size or adversary.eps
        moved = perturbed.detach() + step_size * steepest(adversary.norm, perturbed.grad, perturbed.detach())
        self._carried(own).copy_(project(adversary.norm, moved, clean, adversary.eps) - clean)

    def _target(self, own: StepImages) -> Tensor:
        """What of a share's images is attacked."""
        return attacked_channels(own.clean["target"], self.recipe.threat.channels)

    def _carried(self, own: StepImages) -> Tensor:
        """The perturbation so far of a share, of each attacked channel."""
        part = own.parts["target"]
        assert self._perturbation is not None
        return self._perturbation[part.start : part.end]
