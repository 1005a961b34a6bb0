"""The fast gradient sign method: one step, in training and in evaluation."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks.base import Attack, LogitsFn, ascend, cross_entropy_of, image_gradient
from temper.attacks.member import SearchMember
from temper.attacks.norms import random_point, steepest
from temper.spec import Geometry, Threat


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


class FullFGSM(SearchMember):
    """One full step from the image. Goodfellow et al. 2014, arXiv:1412.6572."""

    kind: Literal["fgsm"] = "fgsm"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, norm: Geometry) -> Tensor:
        return steepest(self.ball(norm), image_gradient(cross_entropy_of(model, labels), images), images)

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        return (images + threat.eps * found).clamp(0, 1)
