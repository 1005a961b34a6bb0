"""The fast gradient sign method: one step."""

from typing import Literal

import torch
from torch import Tensor

from temper.attacks.base import Attack, LogitsFn, loss_gradient
from temper.attacks.norms import project, random_point, steepest


class FGSM(Attack):
    """One step of the gradient. Goodfellow et al. 2014, arXiv:1412.6572.

    With ``random_start`` the step is 1.25 eps from a random point of the ball, as in fast adversarial
    training (Wong et al. 2020, arXiv:2001.03994); without, it is eps from the image itself.
    """

    kind: Literal["fgsm"] = "fgsm"
    random_start: bool = False

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        start, step_size = images, self.eps
        if self.random_start:
            start, step_size = random_point(self.norm, images, self.eps, generator), 1.25 * self.eps
        gradient = loss_gradient(logits_fn, start, labels)
        return project(
            self.norm, start + step_size * steepest(self.norm, gradient), images, self.eps
        ).detach()
