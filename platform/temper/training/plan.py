"""The phases of a run on its model: what trains when, and how fast."""

from dataclasses import dataclass

from temper.errors import RecipeError
from temper.models import TaskModel, batch_norms
from temper.recipe import Recipe
from temper.schedules import Phase


@dataclass(frozen=True)
class PhasePlan:
    """One phase with the parameters that it trains: a pure function of the recipe."""

    phase: Phase
    trainable: dict[str, list[str]]
    """Group -> names of its parameters that train."""
    num_params: dict[str, int]
    """Group -> how many numbers these are."""
    lr_factors: dict[str, float]
    """Group -> factor of the recipe's learning rate."""
    is_attacked: bool
    """Whether the recipe's adversary takes part."""
    caches_features: bool
    """Whether the features of the frozen body are computed once per image."""

    @property
    def names(self) -> list[str]:
        """All parameters that train, in the order of the groups."""
        return [name for own in self.trainable.values() for name in own]


def plan_phases(recipe: Recipe, model: TaskModel) -> list[PhasePlan]:
    """Every phase of ``recipe`` on ``model``.

    Raises:
        RecipeError: the schedule does not fit the run, its model or its adversary.
    """
    phases = recipe.schedule.plan(recipe.epochs, model.group_names)
    return [_plan(recipe, model, phase) for phase in phases]


def phase_of(plans: list[PhasePlan], epoch: int) -> PhasePlan:
    """The phase that ``epoch`` belongs to."""
    return next(plan for plan in plans if epoch < plan.phase.end_epoch)


def _plan(recipe: Recipe, model: TaskModel, phase: Phase) -> PhasePlan:
    adversary = recipe.objective.adversary
    is_attacked = phase.is_attacked and adversary is not None and adversary.eps > 0
    trainable = model.trainable_names(phase.trainable, recipe.objective.trained_heads)
    parameters = dict(model.named_parameters())
    if phase.batch_norm == "twin":
        if not batch_norms(model):
            raise RecipeError(
                f"schedule: batch_norm 'twin' in phase '{phase.name}' needs BatchNorm, which "
                f"{recipe.model.backbone} has not; use 'train'"
            )
        if is_attacked and adversary is not None and adversary.kind == "free":
            raise RecipeError("schedule: batch_norm 'twin' does not go with the adversary 'free'; use 'pgd'")
    return PhasePlan(
        phase=phase,
        trainable=trainable,
        num_params={g: sum(parameters[name].numel() for name in own) for g, own in trainable.items()},
        lr_factors={g: f for g, f in phase.lr_factors(model.group_names).items() if g in trainable},
        is_attacked=is_attacked,
        caches_features=not is_attacked and _has_fixed_features(recipe, trainable, phase),
    )


def _has_fixed_features(recipe: Recipe, trainable: dict[str, list[str]], phase: Phase) -> bool:
    """Whether an image's features are the same in every step of the phase."""
    is_still = list(trainable) == ["head"] and phase.batch_norm != "twin"
    is_same_image = recipe.data.augment is None and recipe.data.mixing is None
    return is_still and is_same_image and recipe.objective.term.kind != "lwf"
