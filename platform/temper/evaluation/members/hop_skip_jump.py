"""HopSkipJump: an attack that needs nothing of the model but its decisions."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks import Member, Sees
from temper.attacks.norms import project
from temper.evaluation.members.queries import LARGEST_CHUNK, is_fooled, per_image, seeded
from temper.evaluation.members.starts import adversarial_starts
from temper.evaluation.threats import distances
from temper.spec import Geometry, Threat

BoundaryNorm = Literal["linf", "l2"]

MAX_HALVINGS = 40
"""Of a step or an interval: float32 has no more to give."""

FIRST_DELTA = 0.1
"""How far the first estimate of the boundary's normal reaches, in L2."""


class HopSkipJumpMember(Member):
    """Walks along the boundary by estimates of its normal. Chen et al. 2020, arXiv:1904.02144.

    Our own loop. Foolbox's takes the norms of estimates and noise over the whole batch, so that steps shrink
    with the batch (median L2 0.92, 1.19 and 1.92 at batch sizes 1, 8 and 64, measured); it clips to [0,1]
    whatever the bounds; and one image without a start ends it for all. Here an image leaves as soon as it
    is inside the ball, and one without a start is returned as it was.
    """

    kind: Literal["hop_skip_jump"] = "hop_skip_jump"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    sees: ClassVar[Sees] = "decisions"
    steps: int = Field(default=30, ge=1)
    evaluations: int = Field(default=100, ge=2)
    """Of the model for the first estimate; times the square root of the step for later ones."""

    @property
    def name(self) -> str:
        return f"hop-skip-jump-{self.steps}{self.suffix}"

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        norm: BoundaryNorm = "linf" if threat.norm == "linf" else "l2"
        found = self.nearest(model, images, labels, norm, threat.eps, seed)
        inside = distances(images, found, norm) <= threat.eps
        return torch.where(per_image(inside), found, project(norm, found, images, threat.eps))

    def nearest(
        self, model: nn.Module, images: Tensor, labels: Tensor, norm: BoundaryNorm, enough: float, seed: int
    ) -> Tensor:
        """The nearest points that fool, or that are within ``enough``; ``images`` where nothing was found."""
        walk = _Walk(model, norm, seeded(seed, images), self.evaluations, LARGEST_CHUNK * len(images))
        result, found = adversarial_starts(model, images, labels, walk.generator)
        active = found.nonzero().flatten()
        points = walk.to_boundary(images[active], result[active], labels[active])
        result[active] = points
        for step in range(self.steps):
            far = distances(images[active], result[active], norm) > enough
            active, points = active[far], points[far]
            if not len(active):
                break
            points = walk.hop(images[active], points, labels[active], step)
            lengths = distances(images[active], points, norm)
            nearer = lengths < distances(images[active], result[active], norm)
            result[active[nearer]] = points[nearer]
        return result


class _Walk:
    """The steps of HopSkipJump for images of their own each; (B,) everywhere a number for each image."""

    def __init__(
        self,
        model: nn.Module,
        norm: BoundaryNorm,
        generator: torch.Generator,
        evaluations: int,
        chunk: int,
    ) -> None:
        self.model, self.norm, self.generator = model, norm, generator
        self.evaluations, self.chunk = evaluations, chunk

    def hop(self, clean: Tensor, points: Tensor, labels: Tensor, step: int) -> Tensor:
        """From ``points`` on the boundary to others that should be nearer to ``clean``."""
        lengths, size = distances(clean, points, self.norm), clean.shape[1:].numel()
        delta = torch.full_like(lengths, FIRST_DELTA) if step == 0 else lengths / size
        normal = self.normal(points, labels, delta, int(self.evaluations * math.sqrt(step + 1)))
        direction = normal.sign() if self.norm == "linf" else normal
        points = self.leap(points, labels, direction, lengths / math.sqrt(step + 1))
        return self.to_boundary(clean, points, labels)

    def normal(self, points: Tensor, labels: Tensor, delta: Tensor, count: int) -> Tensor:
        """Unit vectors towards what fools, estimated from ``count`` decisions around each point."""
        total_noise, total_signed = torch.zeros_like(points), torch.zeros_like(points)
        total = torch.zeros_like(delta)
        share = max(1, self.chunk // len(points))
        for start in range(0, count, share):
            num = min(share, count - start)
            noise = self.noise((num, *points.shape), points)
            moved = (points + per_image(delta) * noise).clamp(0, 1)
            noise = (moved - points) / per_image(delta)
            fooled = is_fooled(self.model, moved.flatten(0, 1), labels.repeat(num)).view(num, -1)
            signs = fooled.to(points.dtype) * 2 - 1
            total_noise += noise.sum(0)
            total_signed += (signs[..., None, None, None] * noise).sum(0)
            total += signs.sum(0)
        # The mean decision as a baseline, but where all agree.
        baseline = torch.where(total.abs() == count, torch.zeros_like(total), total / count)
        normal = total_signed - per_image(baseline) * total_noise
        return normal / per_image(normal.flatten(1).norm(dim=1).clamp_min(1e-12))

    def noise(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Directions of unit length in L2, each image its own."""
        noise = torch.empty(shape, device=like.device, dtype=like.dtype)
        if self.norm == "linf":
            noise.uniform_(-1, 1, generator=self.generator)
        else:
            noise.normal_(generator=self.generator)
        lengths: Tensor = torch.linalg.vector_norm(noise, 2, dim=(-3, -2, -1), keepdim=True)
        return noise / lengths.clamp_min(1e-12)

    def leap(self, points: Tensor, labels: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
        """A step along ``direction``, halved for each image until it fools; else the point itself."""
        result = points.clone()
        left = torch.arange(len(points), device=points.device)
        for halving in range(MAX_HALVINGS):
            steps = per_image(lengths[left] / 2**halving) * direction[left]
            tried = (points[left] + steps).clamp(0, 1)
            fooled = is_fooled(self.model, tried, labels[left])
            result[left[fooled]] = tried[fooled]
            left = left[~fooled]
            if not len(left):
                break
        return result

    def to_boundary(self, clean: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """The point of least distance on the way from ``clean`` to ``points`` that still fools, by halving.

        In L2 the way is the straight line; in Linf the perturbation is cut to a growing cube.
        """
        size = clean.shape[1:].numel()
        highs = (
            distances(clean, points, self.norm) if self.norm == "linf" else torch.ones_like(clean[:, 0, 0, 0])
        )
        lows, result = torch.zeros_like(highs), points.clone()
        precision = highs / (size**2 if self.norm == "linf" else size**1.5)
        left = torch.arange(len(points), device=points.device)
        for _ in range(MAX_HALVINGS):
            left = left[(highs - lows)[left] > precision[left]]
            if not len(left):
                break
            middles = (lows[left] + highs[left]) / 2
            tried = self.between(clean[left], points[left], middles)
            fooled = is_fooled(self.model, tried, labels[left])
            result[left[fooled]] = tried[fooled]
            highs[left] = torch.where(fooled, middles, highs[left])
            lows[left] = torch.where(fooled, lows[left], middles)
        return result

    def between(self, clean: Tensor, points: Tensor, share: Tensor) -> Tensor:
        if self.norm == "l2":
            return torch.lerp(clean, points, per_image(share))
        limit = per_image(share)
        return clean + torch.minimum(torch.maximum(points - clean, -limit), limit)
