"""The fast gradient sign method: one step."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.base import Attack, LogitsFn, ascend, cross_entropy_of
from temper.attacks.norms import random_point


class FGSM(Attack):
    """One step of the gradient. Goodfellow et al. 2014, arXiv:1412.6572.

    With ``random_start`` the step is 1.25 eps from a random point of the ball, as in fast adversarial
    training (Wong et al. 2020, arXiv:2001.03994); without, it is eps from the image itself.
    """

    kind: Literal["fgsm"] = "fgsm"
    random_start: bool = False

    rel_step: float | None = Field(default=None, gt=0, le=4)
    """The step as a multiple of eps; ``null``: 1.25 from a random start, else 1."""

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        start = random_point(self.norm, images, self.eps, generator) if self.random_start else images
        rel_step = self.rel_step or (1.25 if self.random_start else 1.0)
        loss = cross_entropy_of(logits_fn, labels)
        return ascend(loss, self.norm, start, images, self.eps, rel_step * self.eps, steps=1)
