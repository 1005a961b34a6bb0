"""PGD for evaluation: on the margin, or towards one wrong class after another."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.ascent import Ascent, Found, Problem, climb_in_turn
from temper.attacks.base import LogitsFn
from temper.attacks.losses import likely_goals
from temper.attacks.member import Member
from temper.attacks.norms import eps_per_image, random_point
from temper.spec import Geometry, Threat


class MarginPGD(Member):
    """PGD on the margin, whose gradient does not vanish where the model is confident.

    Unlike ``PGD`` it keeps the best point of a whole run, and images that are fooled leave. Carlini and
    Wagner 2017, arXiv:1608.04644, for the loss.
    """

    kind: Literal["margin_pgd"] = "margin_pgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    steps: int = Field(default=100, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"margin-pgd-{self.steps}{self.suffix}"

    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        eps = eps_per_image(self.ball(threat.norm), threat.eps, images)
        problem = Problem(logits_fn, self.ball(threat.norm), "margin", images, labels, eps)
        return _climb(problem, [None], self.steps, generator)


class GoalPGD(Member):
    """PGD on the margin towards the most likely wrong classes in turn; any wrong answer on the way counts."""

    kind: Literal["goal_pgd"] = "goal_pgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    num_goals: int = Field(default=9, ge=1)
    steps: int = Field(default=50, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"goal-pgd-{self.steps}{self.suffix}"

    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with torch.no_grad():
            goals = likely_goals(logits_fn(images), labels, self.num_goals)
        eps = eps_per_image(self.ball(threat.norm), threat.eps, images)
        problem = Problem(logits_fn, self.ball(threat.norm), "margin", images, labels, eps)
        return _climb(problem, goals.unbind(1), self.steps, generator)


def _climb(
    problem: Problem, goals: Sequence[Tensor | None], steps: int, generator: torch.Generator | None
) -> Tensor:
    """The best points of runs from random starts, in steps of 2.5 * eps / ``steps``."""

    def draw_start() -> Tensor:
        return random_point(problem.norm, problem.images, problem.eps, generator)

    def climb_from(turn: Problem, start: Tensor) -> Found:
        return Ascent(turn, start, 2.5 * turn.eps / steps).run(steps)

    return climb_in_turn(problem, goals, draw_start, climb_from).perturbed
