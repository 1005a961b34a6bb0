"""What a run keeps of the model that it started from."""

import copy
from dataclasses import dataclass

from torch import Tensor

from temper.models import StartStatistics, TaskModel
from temper.objective import L2SP, LwF
from temper.recipe import Recipe
from temper.training.plan import PhasePlan


@dataclass(frozen=True)
class StartModel:
    """The start, as far as the recipe's source term and phases ask for it."""

    weights: dict[str, Tensor] | None = None
    """Backbone parameters by name, for ``l2sp``."""
    teacher: TaskModel | None = None
    """The start itself, held still, for ``lwf``."""
    statistics: StartStatistics | None = None
    """Its BatchNorm statistics, for phases with a twin."""

    @classmethod
    def of(cls, model: TaskModel, recipe: Recipe, plans: list[PhasePlan]) -> "StartModel":
        """Made of the start model, before anything is trained or restored."""
        weights = teacher = None
        term = recipe.objective.term
        if isinstance(term, L2SP):
            weights = {
                name: parameter.detach().clone()
                for name, parameter in model.named_parameters()
                if name.startswith("backbone.")
            }
        if isinstance(term, LwF):
            teacher = copy.deepcopy(model).eval().requires_grad_(False)
        has_twin = any(plan.phase.batch_norm == "twin" for plan in plans)
        return cls(weights, teacher, StartStatistics(model) if has_twin else None)
