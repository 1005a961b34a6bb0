"""Auto-PGD: step sizes that adapt to each image, without tuning.

Croce and Hein 2020, arXiv:2003.01690; in L1 Croce and Hein 2021, arXiv:2103.01208.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.ascent import Ascent, Found, Problem, climb_in_turn
from temper.attacks.base import LogitsFn
from temper.attacks.losses import SHORT, LossName, likely_goals, loss_for, smallest_num_classes
from temper.attacks.member import Member
from temper.attacks.norms import eps_per_image, project, random_point, steepest
from temper.attacks.sparse import project_in_range, sparse_direction
from temper.spec import Geometry, Norm, Threat

MOMENTUM = 0.75
"""Share of a step that is new; the rest repeats the step before."""
RHO = 0.75
"""The step is halved when at most this share of the steps since the last checkpoint raised the loss."""
FIRST_COUNT_FRAC = 0.2
"""Share of the coordinates that the first steps in L1 move."""
ROUNDING = 1e-6
"""Changes of a pixel up to this are float error. Counted as moved, they kept runs from becoming sparse: a
linear model's optimum was missed by 4 to 8 % from a third of the starts (measured)."""


class APGD(Member):
    """Auto-PGD away from the label, on one of three losses."""

    kind: Literal["apgd"] = "apgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    loss: LossName = "cross_entropy"
    steps: int = Field(default=100, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"apgd-{SHORT[self.loss]}-{self.steps}{self.suffix}"

    def suits(self, num_classes: int) -> bool:
        return num_classes >= smallest_num_classes(self.loss)

    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        norm, loss, steps = self.ball(threat.norm), self.loss, self.steps
        found = apgd(logits_fn, images, labels, norm, threat.eps, loss=loss, steps=steps, generator=generator)
        return found.perturbed


class GoalAPGD(Member):
    """Auto-PGD towards the most likely wrong classes in turn.

    On the DLR loss, or on the margin where there are fewer than the 4 classes that it needs.
    """

    kind: Literal["goal_apgd"] = "goal_apgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    num_goals: int = Field(default=9, ge=1)
    steps: int = Field(default=100, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"apgd-goals-{self.steps}{self.suffix}"

    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with torch.no_grad():
            logits = logits_fn(images)
        return apgd(
            logits_fn,
            images,
            labels,
            self.ball(threat.norm),
            threat.eps,
            loss=loss_for(logits.shape[1], "dlr", has_goal=True),
            goal_labels=likely_goals(logits, labels, self.num_goals),
            steps=self.steps,
            generator=generator,
        ).perturbed


def apgd(
    logits_fn: LogitsFn,
    images: Tensor,
    labels: Tensor,
    norm: Norm,
    eps: float | Tensor,
    *,
    loss: LossName = "cross_entropy",
    goal_labels: Tensor | None = None,
    steps: int = 100,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Found:
    """Attack ``images`` (B,3,H,W) with one ``eps`` or one per image (B,), pixel units of [0,1].

    ``goal_labels`` (B,) or (B,G): one goal after another for each image, for those that still stand. A run
    begins at ``start`` (B,3,H,W), projected into the ball, or else at a random point of it. Each gradient
    step costs a forward and a backward pass over the images that still stand; the end of a run costs one
    forward pass more.

    Raises:
        UsageError: the loss is not defined for so few classes.
        ValueError: ``eps`` has another shape, or is negative.
    """
    radii = eps_per_image(norm, eps, images)
    problem = Problem(logits_fn, norm, loss, images, labels, radii)

    def draw_start() -> Tensor:
        if start is not None:
            return _into_ball(norm, start, images, radii)
        if norm != "l1":
            return random_point(norm, images, radii, generator)
        return project_in_range(images + torch.empty_like(images).normal_(generator=generator), images, radii)

    def climb_from(turn: Problem, point: Tensor) -> Found:
        ascent = SparseAPGDAscent(turn, point, steps) if norm == "l1" else APGDAscent(turn, point, steps)
        return ascent.run(steps)

    goals = [None] if goal_labels is None else goal_labels.view(len(goal_labels), -1).unbind(1)
    return climb_in_turn(problem, goals, draw_start, climb_from)


def _into_ball(norm: Norm, points: Tensor, images: Tensor, eps: Tensor) -> Tensor:
    return project_in_range(points, images, eps) if norm == "l1" else project(norm, points, images, eps)


def checkpoints(steps: int) -> list[int]:
    """The steps after which step sizes are reviewed: often at the end, where they are small.

    At shares p of the steps with p1 = 0.22 and each stretch 0.03 shorter than the one before, but at least
    0.06 long; rounded up. Counted in hundredths, because 0.22 + 0.19 + ... is not exact.
    """
    found, share, stretch = [], 0, 22
    while share + stretch <= 100:
        share += stretch
        found.append(-(-share * steps // 100))
        stretch = max(stretch - 3, 6)
    return sorted(set(found))


@dataclass
class _Review:
    """What is compared at the next checkpoint, a row for each image that is still in the batch."""

    num_rises: Tensor
    best_loss: Tensor
    """At the last checkpoint."""
    was_halved: Tensor
    """There."""

    def repack(self, rows: Tensor) -> None:
        self.num_rises = self.num_rises[rows]
        self.best_loss = self.best_loss[rows]
        self.was_halved = self.was_halved[rows]


class APGDAscent(Ascent):
    """Momentum, and a step size per image that is halved when it no longer helps."""

    def __init__(self, problem: Problem, start: Tensor, steps: int) -> None:
        super().__init__(problem, start, step_size=2 * problem.eps)
        self.checkpoints = checkpoints(steps)
        losses = self.climb.loss
        self.review = _Review(torch.zeros_like(losses), losses, torch.zeros_like(losses, dtype=torch.bool))
        self.last_checkpoint = 0
        self.loss_before = losses

    def next_point(self, step: int) -> Tensor:
        climb, problem = self.climb, self.problem
        if step == 1:
            self.review.best_loss = climb.best_loss
        self.loss_before = climb.loss
        moved = climb.current + climb.step_size * steepest(problem.norm, climb.gradient)
        towards = project(problem.norm, moved, problem.images, problem.eps)
        if step == 1:
            return towards
        change = MOMENTUM * (towards - climb.current) + (1 - MOMENTUM) * (climb.current - climb.previous)
        return project(problem.norm, climb.current + change, problem.images, problem.eps)

    def adapt(self, step: int) -> None:
        climb, review = self.climb, self.review
        review.num_rises = review.num_rises + (climb.loss > self.loss_before)
        if step not in self.checkpoints:
            return
        rises_seldom = review.num_rises <= RHO * (step - self.last_checkpoint)
        is_stuck = ~review.was_halved & (climb.best_loss <= review.best_loss)
        halved = rises_seldom | is_stuck
        climb.step_size = torch.where(halved.view(-1, 1, 1, 1), climb.step_size / 2, climb.step_size)
        climb.return_to_best(halved)
        self.review = _Review(torch.zeros_like(review.num_rises), climb.best_loss, halved)
        self.last_checkpoint = step

    def repack(self, rows: Tensor) -> None:
        super().repack(rows)
        self.review.repack(rows)


class SparseAPGDAscent(Ascent):
    """L1: each step moves few coordinates, fewer as the best point becomes sparser; no momentum."""

    def __init__(self, problem: Problem, start: Tensor, steps: int) -> None:
        super().__init__(problem, start, step_size=problem.eps.clone())
        self.period = max(1, int(0.04 * steps))
        num_coordinates = float(start[0].numel())
        self.num_moved = torch.full_like(self.climb.loss, num_coordinates)
        """(K,) coordinates in which the best point differed from its image at the last review."""
        self.counts = FIRST_COUNT_FRAC * self.num_moved
        """(K,) coordinates that a step moves."""

    def next_point(self, step: int) -> Tensor:
        climb, problem = self.climb, self.problem
        moved = climb.current + climb.step_size * sparse_direction(climb.gradient, self.counts)
        return project_in_range(moved, problem.images, problem.eps)

    def adapt(self, step: int) -> None:
        if step % self.period:
            return
        climb, eps = self.climb, self.problem.eps
        moved = (climb.best - self.problem.images).abs() > ROUNDING
        num_moved = moved.flatten(1).sum(1).to(self.num_moved.dtype)
        is_sparser = num_moved < 0.95 * self.num_moved
        smaller = torch.maximum(climb.step_size / 1.5, eps / 10)
        climb.step_size = torch.where(is_sparser.view(-1, 1, 1, 1), eps, smaller)
        climb.return_to_best(is_sparser)
        self.num_moved, self.counts = num_moved, num_moved / 1.5

    def repack(self, rows: Tensor) -> None:
        super().repack(rows)
        self.num_moved, self.counts = self.num_moved[rows], self.counts[rows]
