"""DeepFool: step by step to the nearest boundary, with each boundary approximated by a plane.

Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2, with the steps of its section 3.3 in Linf.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.ascent import where
from temper.attacks.base import LogitsFn
from temper.attacks.losses import is_fooled, likely_goals
from temper.attacks.member import SearchMember
from temper.attacks.norms import project
from temper.attacks.portions import cut
from temper.spec import Geometry, Norm, Threat

CARRY = 1e-4
"""Added to each step's length, so that steps to a boundary do not end just short of it for ever."""
SMALLEST = 1e-8
"""Added to the length of a gradient that may be zero."""
OVERSHOOT = 0.02
"""Share by which the perturbation is longer than the sum of its steps."""


class DeepFool(SearchMember):
    """The small perturbation that DeepFool finds; nothing is random.

    Each step costs an image a forward pass, and a backward pass for each other candidate; images that are
    fooled leave. ``CARRY``, ``SMALLEST`` and ``OVERSHOOT`` are those of Foolbox, and so are the points
    that it ends at.
    """

    kind: Literal["deepfool"] = "deepfool"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    steps: int = Field(default=25, ge=1)
    candidates: int = Field(default=10, ge=2)
    """Classes that are looked at: the image's own, and the likeliest others of the clean image."""

    def search(self, model: LogitsFn, images: Tensor, labels: Tensor, norm: Geometry) -> Tensor:
        """Points (B,3,H,W) in [0,1] at any distance: the first that fooled, else where the steps ended."""
        ball = self.ball(norm)
        return torch.cat([self._nearest(model, images[rows], labels[rows], ball) for rows in cut(images)])

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        return project(self.ball(threat.norm), found, images, threat.eps)

    def _nearest(self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, norm: Norm) -> Tensor:
        found, moved = images.clone(), torch.zeros_like(images)
        rows = torch.arange(len(images), device=images.device)
        goals = rows.new_empty(0)
        for step in range(self.steps):
            points, logits = _look(logits_fn, found[rows])
            if step == 0:
                goals = likely_goals(logits.detach(), labels, self.candidates - 1)
            standing = ~is_fooled(logits.detach(), labels[rows])
            num_standing, num_fooled = int(standing.sum()), int((~standing).sum())
            if num_standing == 0:
                break
            # The passes back need the fooled ones as well, unless the others are looked at again.
            if num_fooled * goals.shape[1] > num_standing:
                rows = rows[standing]
                points, logits = _look(logits_fn, found[rows])
                standing = standing[standing]
            moved[rows] += _step(norm, points, logits, labels[rows], goals[rows])
            rows = rows[standing]
            found[rows] = (images[rows] + (1 + OVERSHOOT) * moved[rows]).clamp(0, 1)
        return found


def _step(norm: Norm, points: Tensor, logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """(K,3,H,W): the step to the nearest plane on which a goal of ``goals`` (K,G) equals the label."""
    leads = logits.gather(1, goals) - logits.gather(1, labels[:, None])
    shortest, direction = torch.full_like(leads[:, 0].detach(), torch.inf), torch.zeros_like(points)
    for lead in leads.unbind(1):
        gradient = _gradient(lead, points)
        length = lead.detach().abs() / (_dual_length(norm, gradient) + SMALLEST)
        nearer = length < shortest
        direction = where(nearer, gradient, direction)
        shortest = torch.where(nearer, length, shortest)
    lengths = shortest.nan_to_num(posinf=0.0) + CARRY
    if norm == "linf":
        return lengths.view(-1, 1, 1, 1) * direction.sign()
    return (lengths / (_dual_length(norm, direction) + SMALLEST)).view(-1, 1, 1, 1) * direction


def _dual_length(norm: Norm, gradient: Tensor) -> Tensor:
    """(K,) by how much a logit changes over a step of length 1 in the norm."""
    lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), 1 if norm == "linf" else 2, dim=1)
    return lengths


def _look(logits_fn: LogitsFn, points: Tensor) -> tuple[Tensor, Tensor]:
    """``points`` (K,3,H,W) and their logits (K,C), with the graph between them."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        return points, logits_fn(points)


def _gradient(lead: Tensor, points: Tensor) -> Tensor:
    """Of each of ``lead`` (K,) at its point; zero where the model lets none through."""
    gradient = None
    if lead.requires_grad:
        gradient = torch.autograd.grad(lead.sum(), points, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(points) if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
