"""Our own attacks by changes that people hardly notice: turned, moved, blurred, other contrast or light.

Each tries a fixed list of changes, weak ones first. ``eps`` (0..1) scales how far the list reaches. All
images of a batch are given the same changes, so that none depends on its batch-mates.
"""

import itertools
import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from temper.attacks import Member, Sees
from temper.evaluation.members.queries import scores
from temper.evaluation.threats import margins
from temper.spec import Geometry, Threat

Change = tuple[float, ...]
"""The parameters of one change of an image, each in -1..1: shares of its whole range."""


class SemanticMember(Member):
    """Tries ``changes`` in turn on the images that still stand; keeps the first that fools, or the worst."""

    geometries: ClassVar[tuple[Geometry, ...]] = ("semantic",)
    sees: ClassVar[Sees] = "scores"

    def changes(self, seed: int) -> list[Change]:
        """What is tried at eps 1; the order is that of strength."""
        raise AssertionError(f"{type(self).__name__} does not say what it changes")

    def apply(self, images: Tensor, change: Change) -> Tensor:
        """``images`` (B,3,H,W) in [0,1], changed; in [0,1] up to float error."""
        raise AssertionError(f"{type(self).__name__} does not say how it changes images")

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        result, active = images.clone(), torch.arange(len(images), device=images.device)
        smallest = margins(scores(model, images), labels)
        for change in self.changes(seed) if threat.eps else []:
            changed = self.apply(images[active], tuple(threat.eps * part for part in change)).clamp(0, 1)
            found = margins(scores(model, changed), labels[active])
            worse = found < smallest[active]
            result[active[worse]], smallest[active[worse]] = changed[worse], found[worse]
            active = active[found >= 0]
            if not len(active):
                break
        return result


class SpatialMember(SemanticMember):
    """Rotations and translations: a grid and random draws. Engstrom et al. 2019, arXiv:1712.02779.

    More ``draws`` do what restarts do for other members, without trying the grid again.
    """

    kind: Literal["spatial"] = "spatial"
    max_degrees: float = Field(default=30.0, gt=0, le=180)
    max_shift: float = Field(default=0.1, ge=0, le=1)
    """As a share of the height and of the width."""
    rotations: int = Field(default=13, ge=1)
    """Of the grid; odd, so that 0 is among them."""
    shifts: int = Field(default=5, ge=1)
    """Of the grid in each direction; odd, so that 0 is among them."""
    draws: int = Field(default=50, ge=0)

    @field_validator("rotations", "shifts")
    @classmethod
    def _odd(cls, number: int) -> int:
        if number % 2 == 0:
            raise ValueError(f"expected an odd number, so that 0 is in the grid, got {number}")
        return number

    def changes(self, seed: int) -> list[Change]:
        turns, moves = _spread(self.rotations), _spread(self.shifts)
        grid = list(itertools.product(turns, moves, moves))
        drawn = torch.rand(self.draws, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        every = [change for change in grid if any(change)] + [tuple(row) for row in drawn.tolist()]
        return sorted(every, key=lambda change: (max(map(abs, change)), sum(map(abs, change)), change))

    def apply(self, images: Tensor, change: Change) -> Tensor:
        """Bilinear, about the centre; what comes in from outside is black."""
        height, width = images.shape[2:]
        angle = math.radians(self.max_degrees * change[0])
        down, right = (2 * self.max_shift * part for part in change[1:])
        # From a place in the result to one in the image, both in -1..1 along each side.
        matrix = torch.tensor(
            [
                [math.cos(angle), -math.sin(angle) * height / width, -right],
                [math.sin(angle) * width / height, math.cos(angle), -down],
            ],
            dtype=images.dtype,
            device=images.device,
        )
        places = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, places, mode="bilinear", padding_mode="zeros", align_corners=False)


class ContrastMember(SemanticMember):
    """Every pixel nearer to the image's mean grey, or farther from it."""

    kind: Literal["contrast"] = "contrast"
    max_change: float = Field(default=0.8, gt=0, le=1)
    """The contrast goes from 1 minus this to 1 plus this."""
    levels: int = Field(default=10, ge=1)
    """Strengths in each direction."""

    def changes(self, seed: int) -> list[Change]:
        return _both_ways(self.levels)

    def apply(self, images: Tensor, change: Change) -> Tensor:
        grey = images.mean((1, 2, 3), keepdim=True)
        return grey + (1 + self.max_change * change[0]) * (images - grey)


class BrightnessMember(SemanticMember):
    """The same amount added to every pixel, or taken from it."""

    kind: Literal["brightness"] = "brightness"
    max_change: float = Field(default=0.4, gt=0, le=1)
    """In pixel units of [0,1]."""
    levels: int = Field(default=10, ge=1)
    """Strengths in each direction."""

    def changes(self, seed: int) -> list[Change]:
        return _both_ways(self.levels)

    def apply(self, images: Tensor, change: Change) -> Tensor:
        return images + self.max_change * change[0]


class BlurMember(SemanticMember):
    """Gaussian blur; the image is mirrored at its border."""

    kind: Literal["blur"] = "blur"
    max_sigma: float = Field(default=1 / 16, gt=0, le=1)
    """Of the Gaussian, as a share of the shorter side: 2 pixels of 32."""
    levels: int = Field(default=10, ge=1)

    def changes(self, seed: int) -> list[Change]:
        return [((level + 1) / self.levels,) for level in range(self.levels)]

    def apply(self, images: Tensor, change: Change) -> Tensor:
        shorter = min(images.shape[2:])
        sigma = self.max_sigma * change[0] * shorter
        # Beyond three and a half sigma lie 0.05 % of a Gaussian. A mirror can't be wider than the image.
        radius = min(math.ceil(3.5 * sigma), shorter - 1)
        places = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
        weights = torch.exp(-places.square() / (2 * sigma**2))
        weights = (weights / weights.sum()).expand(images.shape[1], 1, -1)
        padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
        rows = F.conv2d(padded, weights[:, :, :, None], groups=images.shape[1])
        return F.conv2d(rows, weights[:, :, None, :], groups=images.shape[1])


def _spread(number: int) -> list[float]:
    """An odd ``number`` of values from -1 to 1, 0 among them."""
    half = number // 2
    return [step / half for step in range(-half, half + 1)] if half else [0.0]


def _both_ways(levels: int) -> list[Change]:
    return [(sign * (level + 1) / levels,) for level in range(levels) for sign in (-1, 1)]
