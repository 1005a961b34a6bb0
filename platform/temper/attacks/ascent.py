"""Raising a loss image by image, over a batch that fooled images leave.

Everything an attack knows about an image is a row of a tensor, so that what happens to one image does not
depend on the others of its batch, and a batch can be repacked at any time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from temper.attacks.base import LogitsFn
from temper.attacks.losses import LossName, is_fooled, losses_of
from temper.attacks.norms import project, steepest
from temper.attacks.portions import images_at_once, portions
from temper.spec import Norm

REPACK_FRAC = 0.25
"""Share of a batch that must be done before it is repacked: copying rows costs, and so do fooled images."""


@dataclass(frozen=True)
class Problem:
    """What is attacked: B images, how far each may move, and the loss to raise."""

    logits_fn: LogitsFn
    norm: Norm
    loss: LossName
    images: Tensor
    labels: Tensor
    """(B,) int64."""
    eps: Tensor
    """(B,1,1,1)."""
    goal_labels: Tensor | None = None
    """(B,) int64, or ``None``: any wrong class."""

    def rows(self, rows: Tensor | slice) -> "Problem":
        """The same for some of the images."""
        goals = None if self.goal_labels is None else self.goal_labels[rows]
        return replace(
            self, images=self.images[rows], labels=self.labels[rows], eps=self.eps[rows], goal_labels=goals
        )


@dataclass
class Found:
    """The best that an attack found for each of B images."""

    perturbed: Tensor
    """(B,3,H,W): the first point that fooled the model, else the one of the highest loss."""
    fooled: Tensor
    """(B,) bool."""
    loss: Tensor
    """(B,) of ``perturbed``."""

    @classmethod
    def nothing(cls, images: Tensor) -> "Found":
        """The images themselves, which anything is better than."""
        losses = torch.full_like(images[:, 0, 0, 0], -torch.inf)
        return cls(images.clone(), torch.zeros_like(losses, dtype=torch.bool), losses)

    @classmethod
    def at(cls, points: Tensor, logits: Tensor, labels: Tensor) -> "Found":
        """``points`` with their margins as losses."""
        return cls(points, is_fooled(logits, labels), losses_of("margin", logits, labels))

    @property
    def standing_rows(self) -> Tensor:
        """(S,) the rows that do not fool the model yet."""
        return (~self.fooled).nonzero().flatten()

    def update(self, rows: Tensor, other: "Found") -> Tensor:
        """Take what ``other`` did better on ``rows`` (K,); where it did (K,) bool."""
        better = other.fooled | (other.loss > self.loss[rows])
        chosen = rows[better]
        self.perturbed[chosen] = other.perturbed[better]
        self.fooled[chosen] = other.fooled[better]
        self.loss[chosen] = other.loss[better]
        return better


@dataclass
class Climb:
    """Where the search stands, a row for each of the K images that are still in the batch."""

    rows: Tensor
    """(K,) positions in the whole batch."""
    standing: Tensor
    """(K,) bool: not fooled yet."""
    current: Tensor
    previous: Tensor
    """The point before ``current``; the same at the start."""
    gradient: Tensor
    loss: Tensor
    """(K,) of ``current``."""
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step_size: Tensor
    """(K,1,1,1)."""

    def repack(self, rows: Tensor) -> None:
        """Keep some of the rows."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])

    def return_to_best(self, chosen: Tensor) -> None:
        """Go on from the best point where ``chosen`` (K,)."""
        self.current = where(chosen, self.best, self.current)
        self.gradient = where(chosen, self.best_gradient, self.gradient)
        self.loss = torch.where(chosen, self.best_loss, self.loss)


class Ascent:
    """Steps of a fixed size along the steepest direction. Subclasses step and adapt otherwise."""

    def __init__(self, problem: Problem, start: Tensor, step_size: Tensor) -> None:
        self.problem = problem
        size, losses = len(start), torch.full_like(start[:, 0, 0, 0], -torch.inf)
        self.found = Found(start.clone(), torch.zeros_like(losses, dtype=torch.bool), losses.clone())
        self.climb = Climb(
            rows=torch.arange(size, device=start.device),
            standing=torch.ones_like(losses, dtype=torch.bool),
            current=start,
            previous=start,
            gradient=torch.zeros_like(start),
            loss=losses,
            best=start,
            best_gradient=torch.zeros_like(start),
            best_loss=losses,
            step_size=step_size,
        )

    def run(self, steps: int) -> Found:
        """At most ``steps`` steps from the start; images that are fooled leave on the way."""
        for step in range(steps + 1):
            if step > 0:
                self.climb.previous, self.climb.current = self.climb.current, self.next_point(step)
            # Nothing follows the last point, so its gradient is not needed.
            self._visit(with_gradient=step < steps)
            if step > 0:
                self.adapt(step)
            if not self._leave():
                return self.found
        self._record(self.climb.standing, self.climb.best, self.climb.best_loss)
        return self.found

    def next_point(self, step: int) -> Tensor:
        """(K,3,H,W) within the ball and [0,1]. ``step`` counts from 1."""
        climb, problem = self.climb, self.problem
        direction = steepest(problem.norm, climb.gradient, climb.current)
        return project(problem.norm, climb.current + climb.step_size * direction, problem.images, problem.eps)

    def adapt(self, step: int) -> None:
        """What changes after a step."""

    def repack(self, rows: Tensor) -> None:
        """Keep some of the rows."""
        self.climb.repack(rows)
        self.problem = self.problem.rows(rows)

    def _visit(self, *, with_gradient: bool) -> None:
        climb, problem = self.climb, self.problem
        logits, climb.loss, climb.gradient = look(problem, climb.current, with_gradient=with_gradient)
        better = climb.loss > climb.best_loss
        climb.best = where(better, climb.current, climb.best)
        climb.best_gradient = where(better, climb.gradient, climb.best_gradient)
        climb.best_loss = torch.where(better, climb.loss, climb.best_loss)
        fooled = climb.standing & is_fooled(logits, problem.labels)
        self._record(fooled, climb.current, climb.loss)
        self.found.fooled[climb.rows[fooled]] = True
        climb.standing = climb.standing & ~fooled

    def _record(self, chosen: Tensor, perturbed: Tensor, loss: Tensor) -> None:
        rows = self.climb.rows[chosen]
        self.found.perturbed[rows] = perturbed[chosen]
        self.found.loss[rows] = loss[chosen]

    def _leave(self) -> bool:
        """Repack when enough images are done; false when all are."""
        num_standing, size = int(self.climb.standing.sum()), len(self.climb.standing)
        if 0 < num_standing <= (1 - REPACK_FRAC) * size:
            self.repack(self.climb.standing.nonzero().flatten())
        return num_standing > 0


def look(problem: Problem, points: Tensor, *, with_gradient: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B,C), losses (B,) and the gradient of each loss (B,3,H,W), all detached.

    The gradient is zero where it isn't asked for, and where the model lets none through: that such a model
    looks robust is for the health gates to see.
    """
    size = images_at_once(problem.logits_fn, points) if with_gradient else len(points)
    if len(points) <= size:
        return _look(problem, points, with_gradient)
    parts = [_look(problem.rows(rows), points[rows], True) for rows in portions(len(points), size)]
    logits, losses, gradients = (torch.cat(same) for same in zip(*parts, strict=True))
    return logits, losses, gradients


def _look(problem: Problem, points: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    points = points.detach().requires_grad_(with_gradient)
    with torch.set_grad_enabled(with_gradient):
        logits = problem.logits_fn(points)
        losses = losses_of(problem.loss, logits, problem.labels, problem.goal_labels)
    gradient = None
    if with_gradient and losses.requires_grad:
        gradient = torch.autograd.grad(losses.sum(), points, allow_unused=True)[0]
    return logits.detach(), losses.detach(), torch.zeros_like(points) if gradient is None else gradient


def climb_in_turn(
    problem: Problem,
    goals: Iterable[Tensor | None],
    draw_start: Callable[[], Tensor],
    climb_from: Callable[[Problem, Tensor], Found],
) -> Found:
    """One run after another, each on the images that still stand, each towards its goal labels (B,) if any.

    The start of a run is drawn for the whole batch, so that no image's start depends on what became of the
    others.
    """
    found = Found.nothing(problem.images)
    for goal_labels in goals:
        rows = found.standing_rows
        if len(rows) == 0:
            break
        turn = replace(problem, goal_labels=goal_labels).rows(rows)
        found.update(rows, climb_from(turn, draw_start()[rows]))
    return found


def where(chosen: Tensor, these: Tensor, those: Tensor) -> Tensor:
    """Rows of ``these`` (K,3,H,W) where ``chosen`` (K,), else of ``those``."""
    return torch.where(chosen.view(-1, 1, 1, 1), these, those)
