"""What a run keeps of the model that it started from."""

import copy
from dataclasses import dataclass

from temper.models import StartStatistics, TaskModel
from temper.recipe import Recipe
from temper.training.plan import PhasePlan


@dataclass(frozen=True)
class StartModel:
    """The start, as far as the recipe's source term and phases ask for it."""

    model: TaskModel | None = None
    """The start itself, held still."""
    statistics: StartStatistics | None = None
    """Its BatchNorm statistics, for phases with a twin."""

    @classmethod
    def of(cls, model: TaskModel, recipe: Recipe, plans: list[PhasePlan]) -> "StartModel":
        """Made of the start model, before anything is trained or restored."""
        needs_start = recipe.objective.term.needs_start
        has_twin = any(plan.phase.batch_norm == "twin" for plan in plans)
        return cls(
            copy.deepcopy(model).eval().requires_grad_(False) if needs_start else None,
            StartStatistics(model) if has_twin else None,
        )
