"""Patches without gradients: random ones, the best of many, then small changes of the best.

After the patches of Sparse-RS (Croce et al. 2022, arXiv:2006.12834) and of PatchAttack (Yang et al. 2020,
arXiv:2004.05682). It asks only for logits, so masked gradients do not stop it.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.ascent import Found, where
from temper.attacks.base import LogitsFn
from temper.attacks.member import Member, Sees
from temper.attacks.patches import corners_of, masks_at, patch_side, rectangles, shares_of_places
from temper.spec import Geometry, Threat

STRIPES = 4
"""Changes of colour across a striped patch."""


class PatchSearch(Member):
    """Random patches of plain colours, stripes and noise at random places; then the best changes bit by bit.

    A change paints a random rectangle of the patch with one colour, and is kept when the margin falls. All
    draws are made for the whole batch; only the images that stand are asked about.
    """

    kind: Literal["patch_search"] = "patch_search"
    geometries: ClassVar[tuple[Geometry, ...]] = ("patch",)
    sees: ClassVar[Sees] = "scores"
    num_queries: int = Field(default=200, ge=1, le=1_000_000)
    """Per image."""
    random_frac: float = Field(default=0.5, gt=0, le=1)
    """Share of the queries that are random patches; the others change the best one."""

    @property
    def name(self) -> str:
        return f"patch-search-{self.num_queries}{self.suffix}"

    @torch.no_grad()
    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        side = patch_side(threat.eps, *images.shape[-2:])
        best = Found.nothing(images)
        corners = torch.zeros(len(images), 2, dtype=torch.int64, device=images.device)
        shares = shares_of_places(images, generator)
        num_random = max(1, round(self.random_frac * self.num_queries))
        for query in range(self.num_queries if side else 0):
            if query < num_random:
                places = corners_of(shares, query, side, images)
                tried = random_patches(images, places, side, generator)
            else:
                progress = query / self.num_queries
                places, tried = corners, _repainted(best.perturbed, corners, side, progress, generator)
            rows = best.standing_rows
            if len(rows) == 0:
                break
            better = best.update(rows, Found.at(tried[rows], logits_fn(tried[rows]), labels[rows]))
            corners[rows[better]] = places[rows[better]]
        return best.perturbed


def random_patches(images: Tensor, corners: Tensor, side: int, generator: torch.Generator | None) -> Tensor:
    """``images`` (B,3,H,W) with a square at ``corners`` (B,2): a plain colour, stripes of two, or noise."""
    shape, device = (*images.shape[:2], 1, 1), images.device
    first, second = (torch.rand(shape, device=device, generator=generator) for _ in range(2))
    # Colours at the ends of the range change most.
    is_extreme = torch.rand(len(images), device=device, generator=generator) < 0.5
    first, second = (where(is_extreme, colour.round(), colour) for colour in (first, second))
    kinds = torch.randint(0, 4, (len(images),), device=device, generator=generator)
    noise = torch.rand(images.shape, device=device, generator=generator)
    texture = torch.where((kinds == 0).view(-1, 1, 1, 1), first.expand_as(images), noise)
    for kind, extent in ((1, images.shape[-2]), (2, images.shape[-1])):
        place = torch.arange(extent, device=device) - corners[:, [kind - 1]]
        odd = (place * STRIPES // max(side, 1)) % 2 == 1
        odd = odd[:, None, :, None] if kind == 1 else odd[:, None, None, :]
        texture = torch.where((kinds == kind).view(-1, 1, 1, 1), torch.where(odd, second, first), texture)
    return torch.where(masks_at(corners, side, images) > 0, texture, images)


def _repainted(
    best: Tensor, corners: Tensor, side: int, progress: float, generator: torch.Generator | None
) -> Tensor:
    """``best`` with a random rectangle of each patch in one random colour; late in the search, small ones."""
    count, device = len(best), best.device
    largest = max(1, round(side * (1 - 0.8 * progress)))
    extents = torch.randint(1, largest + 1, (count, 2), device=device, generator=generator)
    spare = (side - extents + 1).clamp_min(1)
    offsets = (torch.rand(count, 2, device=device, generator=generator) * spare).long()
    offsets = torch.minimum(offsets, spare - 1)
    inside = rectangles(corners + offsets, extents, best)
    colours = torch.rand(count, best.shape[1], 1, 1, device=device, generator=generator).round()
    return torch.where(inside, colours, best)
