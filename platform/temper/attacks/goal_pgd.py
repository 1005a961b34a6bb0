"""PGD for evaluation: on the margin, or towards one wrong class after another."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from temper.attacks.ascent import Ascent, Found, Problem, climb_in_turn
from temper.attacks.base import Attack, LogitsFn
from temper.attacks.losses import LossName, likely_goals
from temper.attacks.norms import eps_per_image, random_point
from temper.spec import Ratio


class _EvaluationPGD(Attack):
    """Unlike ``PGD`` it keeps the best point of a whole run, and images that are fooled leave.

    A class of its own, because the fields of ``PGD`` are part of recipes and of their hashes.
    """

    steps: int = Field(default=100, ge=1, le=10_000)
    step_size: Ratio | None = Field(default=None, gt=0)
    """In pixel units; ``null``: 2.5 * eps / steps."""
    random_start: bool = True
    restarts: int = Field(default=1, ge=1, le=1000)

    def _climb(
        self,
        problem: Problem,
        goals: list[Tensor | None],
        generator: torch.Generator | None,
    ) -> Tensor:
        images, eps = problem.images, problem.eps

        def draw_start() -> Tensor:
            return random_point(self.norm, images, eps, generator) if self.random_start else images

        def climb_from(turn: Problem, start: Tensor) -> Found:
            fixed = None if self.step_size is None else torch.full_like(turn.eps, self.step_size)
            return Ascent(turn, start, 2.5 * turn.eps / self.steps if fixed is None else fixed).run(
                self.steps
            )

        return climb_in_turn(problem, goals, draw_start, climb_from).perturbed


class MarginPGD(_EvaluationPGD):
    """PGD on the margin, whose gradient does not fade where the model is sure.

    Carlini and Wagner 2017, arXiv:1608.04644, for the loss.
    """

    kind: Literal["margin_pgd"] = "margin_pgd"

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        eps = eps_per_image(self.norm, self.eps, images)
        problem = Problem(logits_fn, self.norm, "margin", images, labels, eps)
        return self._climb(problem, [None] * self.restarts, generator)


class GoalPGD(_EvaluationPGD):
    """PGD towards the most likely wrong classes in turn; any wrong answer on the way counts."""

    kind: Literal["goal_pgd"] = "goal_pgd"
    loss: LossName = "margin"
    num_goals: int = Field(default=9, ge=1)
    """At most the number of wrong classes."""

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        with torch.no_grad():
            goals = likely_goals(logits_fn(images), labels, self.num_goals)
        eps = eps_per_image(self.norm, self.eps, images)
        problem = Problem(logits_fn, self.norm, self.loss, images, labels, eps)
        return self._climb(
            problem, [goal for goal in goals.unbind(1) for _ in range(self.restarts)], generator
        )
