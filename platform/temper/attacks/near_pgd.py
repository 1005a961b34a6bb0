"""Attacks that start next to the image, as TRADES and MART do."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from temper.attacks.base import Attack, AttackLoss, LogitsFn, ascend, cross_entropy_of
from temper.attacks.draws import draw_like
from temper.attacks.norms import project
from temper.spec import Ratio

START_STD = 0.001
"""Of the normal noise at the start: without it the divergence from the clean answer has no gradient."""


class NearPGD(Attack):
    """PGD from the image plus noise of 0.001 N(0,1), on the cross-entropy or the divergence of the answers.

    ``divergence`` raises KL(f(x) || f(x')), which needs no labels: the inner maximisation of TRADES (Zhang et
    al. 2019, arXiv:1901.08573). ``cross_entropy`` is that of MART (Wang et al. 2020, OpenReview rklOg6EFwS).
    ``step_size`` in pixel units; ``null`` takes 0.007 at Linf 8/255 and its proportion elsewhere.
    """

    kind: Literal["near_pgd"] = "near_pgd"
    raises: Literal["divergence", "cross_entropy"] = "divergence"
    steps: int = Field(default=10, ge=1, le=10_000)
    step_size: Ratio | None = Field(default=None, gt=0)

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        noise = draw_like(lambda t: t.normal_(0, START_STD, generator=generator), images, generator)
        start = project(self.norm, images + noise, images, self.eps)
        step_size = self.step_size or self.eps * 0.007 / (8 / 255)
        is_divergence = self.raises == "divergence"
        loss = divergence_from(logits_fn, images) if is_divergence else cross_entropy_of(logits_fn, labels)
        return ascend(loss, self.norm, start, images, self.eps, step_size, self.steps)


def divergence_from(logits_fn: LogitsFn, images: Tensor) -> AttackLoss:
    """How far the answer has moved from that to ``images``: the sum of KL(f(x) || f(x'))."""
    with torch.no_grad():
        clean = logits_fn(images).softmax(1)
    return AttackLoss(
        logits_fn, lambda logits, rows: F.kl_div(logits.log_softmax(1), clean[rows], reduction="sum")
    )
