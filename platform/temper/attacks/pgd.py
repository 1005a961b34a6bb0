"""Projected gradient descent."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from temper.attacks.base import Attack, LogitsFn, ascend, cross_entropy_of
from temper.attacks.norms import random_point
from temper.spec import Ratio


class PGD(Attack):
    """Steps along the gradient, each projected back. Madry et al. 2018, arXiv:1706.06083.

    ``step_size`` in pixel units; ``null`` takes 2.5 * eps / steps. Of several ``restarts`` each image
    keeps the one with the highest loss.
    """

    kind: Literal["pgd"] = "pgd"
    steps: int = Field(default=10, ge=1, le=10_000)
    step_size: Ratio | None = Field(default=None, gt=0)
    random_start: bool = True
    restarts: int = Field(default=1, ge=1, le=1000)

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        best = self._descend(logits_fn, images, labels, generator)
        if self.restarts == 1:
            return best
        best_loss = _losses(logits_fn, best, labels)
        for _ in range(self.restarts - 1):
            other = self._descend(logits_fn, images, labels, generator)
            loss = _losses(logits_fn, other, labels)
            better = loss > best_loss
            best = torch.where(better.view(-1, 1, 1, 1), other, best)
            best_loss = torch.where(better, loss, best_loss)
        return best

    def _descend(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        start = random_point(self.norm, images, self.eps, generator) if self.random_start else images
        step_size = self.step_size or 2.5 * self.eps / self.steps
        loss = cross_entropy_of(logits_fn, labels)
        return ascend(loss, self.norm, start, images, self.eps, step_size, self.steps)


@torch.no_grad()
def _losses(logits_fn: LogitsFn, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits_fn(images), labels, reduction="none")
