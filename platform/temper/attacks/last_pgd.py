"""PGD to its last step, whatever happened on the way; images that only go round in a circle leave."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.base import Attack, LogitsFn, cross_entropy_of, image_gradient
from temper.attacks.norms import project, random_point, steepest


class LastPGD(Attack):
    """Where PGD ends on the cross-entropy. Madry et al. 2018, arXiv:1706.06083.

    The same points as those of ``PGD`` with one start, sooner. Next to a maximum of the loss sign steps go
    back and forth between two corners, or stay in one. A model that answers the same image the same sends
    such an image round for ever, so where it would be after the last step is known.
    """

    kind: Literal["last_pgd"] = "last_pgd"
    steps: int = Field(default=20, ge=1, le=10_000)
    rel_step_size: float = Field(default=0.125, gt=0)
    """Times ``eps``."""
    random_start: bool = True

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        start = random_point(self.norm, images, self.eps, generator) if self.random_start else images
        return self._climb(logits_fn, start.detach(), images, labels)

    def _climb(self, logits_fn: LogitsFn, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Where the last step from ``start`` (B,3,H,W) leads."""
        found, rows = start.clone(), torch.arange(len(images), device=images.device)
        before = current = found.clone()
        for left in range(self.steps - 1, -1, -1):
            moved = self._move(logits_fn, current, images, labels)
            earlier, before, current = before, current, moved
            repeats = _same(current, before) | _same(current, earlier)
            if repeats.any():
                ends = current if left % 2 == 0 else before
                found[rows[repeats]] = ends[repeats]
                left_over = (rows, images, labels, before, current)
                rows, images, labels, before, current = (part[~repeats] for part in left_over)
            if len(rows) == 0:
                break
        found[rows] = current
        return found

    def _move(self, logits_fn: LogitsFn, current: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        gradient = image_gradient(cross_entropy_of(logits_fn, labels), current)
        moved = current + self.rel_step_size * self.eps * steepest(self.norm, gradient, current)
        return project(self.norm, moved, images, self.eps)


def _same(these: Tensor, those: Tensor) -> Tensor:
    """(K,) bool: to the last bit."""
    return (these == those).flatten(1).all(1)
