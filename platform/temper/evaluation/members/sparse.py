"""Our own attacks in L0: few pixels, each changed as much as it may be."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks import Member, Sees
from temper.attacks.base import AttackLoss, image_gradient
from temper.evaluation.members.pixels import project_pixels
from temper.evaluation.members.queries import per_image, scores, seeded
from temper.evaluation.threats import margins
from temper.spec import Geometry, Threat


class PGDL0Member(Member):
    """Gradient steps, each projected to the best few pixels. Croce and Hein 2019, arXiv:1909.05040.

    An image stops at the first step that fools; where none does, the one of the smallest margin is kept.
    """

    kind: Literal["pgd_l0"] = "pgd_l0"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l0",)
    steps: int = Field(default=100, ge=1)
    rel_stepsize: float = Field(default=0.5, gt=0)
    """Length of a step in L1 over the number of coordinates, that is the mean change of one. Small steps
    can't exchange pixels: 0.05, 0.15 and 0.5 left 83, 47 and 27 % of the images of a hardened network
    standing (measured)."""

    @property
    def name(self) -> str:
        return f"pgd-l0-{self.steps}{self.suffix}"

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        counts = torch.full_like(labels, int(threat.eps))
        noise = torch.empty_like(images).uniform_(-1, 1, generator=seeded(seed, images))
        tracker = _Best(images, labels)
        active = torch.arange(len(images), device=images.device)
        points = project_pixels(images + noise, images, counts)
        for _ in range(self.steps):
            clean, chosen = images[active], labels[active]
            logits: list[Tensor] = []
            gradient = image_gradient(_margin_loss(model, chosen, logits), points)
            standing = tracker.update(active, points, torch.cat(logits))
            active, points, clean, gradient = (x[standing] for x in (active, points, clean, gradient))
            if not len(active):
                return tracker.points
            length = self.rel_stepsize * clean[0].numel()
            scale = gradient.abs().flatten(1).sum(1).clamp_min(1e-12)
            points = project_pixels(points + length * gradient / per_image(scale), clean, counts[active])
        tracker.update(active, points, scores(model, points))
        return tracker.points


def _margin_loss(model: nn.Module, labels: Tensor, logits: list[Tensor]) -> AttackLoss:
    """The negative margin; what ``model`` said is left in ``logits``."""

    def loss_of(answered: Tensor, rows: slice) -> Tensor:
        logits.append(answered.detach())
        return -margins(answered, labels[rows]).sum()

    return AttackLoss(model, loss_of)


class SparseRSMember(Member):
    """Random search over which pixels take which extreme colours. Croce et al. 2022, arXiv:2006.12834.

    A black box in the sense that it sees nothing but logits, and often the strongest attack in L0.
    """

    kind: Literal["sparse_rs"] = "sparse_rs"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l0",)
    sees: ClassVar[Sees] = "scores"
    queries: int = Field(default=1000, ge=1)
    first_share: float = Field(default=0.8, gt=0, le=1)
    """Of the pixels that are exchanged in the first step; it falls as the search goes on."""

    @property
    def name(self) -> str:
        return f"sparse-rs-{self.queries}{self.suffix}"

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        generator, tracker = seeded(seed, images), _Best(images, labels)
        num = min(int(threat.eps), images[0, 0].numel())
        active = torch.arange(len(images), device=images.device)
        for query in range(self.queries if num else 0):
            share = self.first_share * _shrink(query / self.queries)
            exchanged = num if query == 0 else max(1, round(share * num))
            tried = _exchange(images[active], tracker.points[active], num, exchanged, generator)
            active = active[tracker.update(active, tried, scores(model, tried))]
            if not len(active):
                break
        return tracker.points


def _shrink(progress: float) -> float:
    """The share of pixels to exchange, relative to the first one, as in Square's schedule.

    Halved at these points of the search (0..1); Andriushchenko et al. 2020, arXiv:1912.00049, section 3.
    """
    return 0.5 ** sum(progress > point for point in (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8))


def _exchange(clean: Tensor, points: Tensor, num: int, exchanged: int, generator: torch.Generator) -> Tensor:
    """``points`` with ``exchanged`` of the ``num`` changed pixels put back, and as many others coloured."""
    changed = (points != clean).any(1).flatten(1)
    keys = torch.rand((2, *changed.shape), device=clean.device, generator=generator)
    back = torch.zeros_like(changed).scatter(1, (keys[0] + changed).topk(exchanged, 1).indices, True)
    kept = changed & ~back
    # A colour may be that of the clean image, so fewer than ``num`` may differ.
    spare = num - kept.sum(1, keepdim=True)
    coloured = (keys[1] + ~changed).argsort(1, descending=True).argsort(1) < spare
    colours = torch.empty_like(clean).uniform_(generator=generator).round()
    shape = (len(clean), 1, *clean.shape[2:])
    result = torch.where(back.view(shape), clean, points)
    return torch.where(coloured.view(shape), colours, result)


class _Best:
    """For each image the point that fooled first, or else that of the smallest margin so far."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.points, self.labels = images.clone(), labels
        self.margins = torch.full(labels.shape, torch.inf, device=images.device)

    def update(self, active: Tensor, points: Tensor, logits: Tensor) -> Tensor:
        """(A,) bool: which of the ``active`` images (A,) still stand at their ``points``.

        An equal margin counts as better: a search must be able to drift.
        """
        found = margins(logits.detach(), self.labels[active])
        better = found <= self.margins[active]
        self.points[active[better]] = points.detach()[better]
        self.margins[active[better]] = found[better]
        return found >= 0
