"""Auto-PGD from far outside the ball: first within larger balls, whose ends are where the next ones start.

Croce and Hein 2021, arXiv:2103.01208: in L1, where few coordinates move, it finds what restarts do not.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.apgd import apgd
from temper.attacks.ascent import Found, where
from temper.attacks.base import LogitsFn
from temper.attacks.losses import SHORT, LossName, is_fooled, likely_goals, loss_for
from temper.attacks.member import Member
from temper.spec import Geometry, Threat

STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))
"""Radius in eps, share of the steps."""


class ShrinkingAPGD(Member):
    """Auto-PGD within 3 eps, then 2 eps, then eps.

    ``num_goals`` likely wrong classes in turn, or, with 0, away from the label. On the margin where there are
    too few classes for the loss.
    """

    kind: Literal["shrinking_apgd"] = "shrinking_apgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l1",)
    loss: LossName = "cross_entropy"
    num_goals: int = Field(default=0, ge=0)
    steps: int = Field(default=100, ge=3, le=10_000)
    """Of all stages together."""

    @property
    def name(self) -> str:
        aim = "goals" if self.num_goals else SHORT[self.loss]
        return f"apgd-shrinking-{aim}-{self.steps}{self.suffix}"

    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with torch.no_grad():
            logits = logits_fn(images if self.num_goals else images[:1])
        loss = loss_for(logits.shape[1], self.loss, has_goal=self.num_goals > 0)
        climb = partial(apgd, logits_fn, norm=self.ball(threat.norm), loss=loss, generator=generator)
        if self.num_goals == 0:
            return self._shrink(partial(climb, images, labels), threat.eps)
        best, fooled = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for goal in likely_goals(logits, labels, self.num_goals).unbind(1):
            rows = (~fooled).nonzero().flatten()
            if len(rows) == 0:
                break
            towards = partial(climb, images[rows], labels[rows], goal_labels=goal[rows])
            found = self._shrink(towards, threat.eps)
            with torch.no_grad():
                fooled[rows] = is_fooled(logits_fn(found), labels[rows])
            best[rows] = where(fooled[rows], found, best[rows])
        return best

    def _shrink(self, climb: Callable[..., Found], eps: float) -> Tensor:
        """Where the last stage of ``climb`` ends."""
        point = None
        for radius, share in STAGES:
            point = climb(eps=radius * eps, steps=math.ceil(share * self.steps), start=point).perturbed
        assert point is not None
        return point
