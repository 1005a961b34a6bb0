"""Auto-PGD from far outside the ball: first within larger balls, whose ends are where the next ones start.

Croce and Hein 2021, arXiv:2103.01208: in L1, where few coordinates move, it finds what restarts do not.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.apgd import apgd
from temper.attacks.ascent import where
from temper.attacks.base import Attack, LogitsFn
from temper.attacks.losses import LossName, is_fooled, likely_goals

STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))
"""Radius in eps, share of the steps."""


class ShrinkingAPGD(Attack):
    """Auto-PGD within 3 eps, then 2 eps, then eps; towards likely wrong classes in turn, where asked."""

    kind: Literal["shrinking_apgd"] = "shrinking_apgd"
    loss: LossName = "cross_entropy"
    num_goals: int = Field(default=0, ge=0)
    """Wrong classes to aim at, at most as many as there are; 0: away from the label."""
    steps: int = Field(default=100, ge=3, le=10_000)
    """Of all stages together."""

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        best, fooled = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
        with torch.no_grad():
            goals = likely_goals(logits_fn(images), labels, self.num_goals) if self.num_goals else None
        for goal in [None] if goals is None else goals.unbind(1):
            rows = (~fooled).nonzero().flatten()
            if len(rows) == 0:
                break
            chosen = None if goal is None else goal[rows]
            found = self._shrink(logits_fn, images[rows], labels[rows], chosen, generator)
            with torch.no_grad():
                fooled[rows] = is_fooled(logits_fn(found), labels[rows])
            best[rows] = where(fooled[rows], found, best[rows]) if goals is not None else found
        return best

    def _shrink(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        goal: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        point = None
        for radius, share in STAGES:
            point = apgd(
                logits_fn,
                images,
                labels,
                self.norm,
                radius * self.eps,
                loss=self.loss,
                goal_labels=goal,
                steps=math.ceil(share * self.steps),
                start=point,
                generator=generator,
            ).perturbed
        assert point is not None
        return point
