"""Square: random search without gradients.

Andriushchenko et al. 2020, arXiv:1912.00049. It asks only for logits, so masked gradients do not stop it.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.ascent import Found
from temper.attacks.base import LogitsFn
from temper.attacks.member import Member, Sees
from temper.attacks.norms import eps_per_image
from temper.attacks.squares import Proposal, tiles, transfer_windows
from temper.spec import Geometry, Norm, Threat

FIRST_FRAC = 0.8
"""Share of the pixels that the first squares cover."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: after these the share of pixels that a square covers is halved."""


class Square(Member):
    """Random squares, each kept when it lowers the margin.

    Every image has its own squares. Draws are made for the whole batch at every query, so no image's depend
    on which others have fallen; only the images that stand are asked about.
    """

    kind: Literal["square"] = "square"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    sees: ClassVar[Sees] = "scores"
    num_queries: int = Field(default=1000, ge=1, le=1_000_000)
    """Per image, the start included."""

    @property
    def name(self) -> str:
        return f"square-{self.num_queries}{self.suffix}"

    @torch.no_grad()
    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        norm = self.ball(threat.norm)
        eps = eps_per_image(norm, threat.eps, images)
        start = _start(norm, images, eps, generator)
        best = Found.at(start, logits_fn(start), labels)
        for query in range(1, self.num_queries):
            proposal = self._draw(norm, images, query, generator)
            rows = best.standing_rows
            if len(rows) == 0:
                break
            tried = _apply(norm, proposal.rows(rows), best.perturbed[rows], images[rows], eps[rows])
            best.update(rows, Found.at(tried, logits_fn(tried), labels[rows]))
        return best.perturbed

    def _side(self, norm: Norm, query: int, images: Tensor) -> int:
        """Of the squares of a query, in pixels."""
        height, width = images.shape[-2:]
        place = query * 10_000 / self.num_queries
        share = FIRST_FRAC / 2 ** sum(place > limit for limit in HALVINGS)
        side, largest = round(math.sqrt(share * height * width)), min(height, width)
        if norm == "linf":
            return max(1, min(side, largest))
        # L2: odd, so that a square has a centre, and wide enough for two halves.
        side = max(3, side) | 1
        return side if side <= largest else largest - (largest % 2 == 0 and largest > 1)

    def _draw(self, norm: Norm, images: Tensor, query: int, generator: torch.Generator | None) -> Proposal:
        side = self._side(norm, query, images)
        shape, device = (len(images), 1, 1, 1), images.device
        places = torch.tensor([image_side - side + 1 for image_side in images.shape[-2:]], device=device)
        corners = torch.rand(len(images), 2, 2, device=device, generator=generator)
        return Proposal(
            side=side,
            corners=(corners * places).long().clamp_max(places - 1),
            signs=_signs(torch.empty_like(images[:, :, :1, :1]), generator),
            is_upright=torch.rand(shape, device=device, generator=generator) < 0.5,
        )


def _start(norm: Norm, images: Tensor, eps: Tensor, generator: torch.Generator | None) -> Tensor:
    """Vertical stripes, or tiles; clipped to [0,1]."""
    if norm == "linf":
        stripes = _signs(torch.empty_like(images[:, :, :1, :]), generator)
        return (images + eps * stripes).clamp(0, 1)
    return (images + eps * tiles(images, generator)).clamp(0, 1)


def _apply(norm: Norm, proposal: Proposal, best: Tensor, images: Tensor, eps: Tensor) -> Tensor:
    if norm == "l2":
        return transfer_windows(proposal, best, images, eps)
    # From anywhere in the ball, 2 eps in either direction ends at its edge.
    edge = (images + eps * proposal.signs).clamp(0, 1)
    return torch.where(proposal.mask(0, images), edge, best)


def _signs(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """-1 or 1 with equal chances."""
    return like.bernoulli_(0.5, generator=generator) * 2 - 1
