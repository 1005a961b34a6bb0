"""The phases of a run on its model: what trains when, and how fast."""

from dataclasses import dataclass, replace

from temper.errors import RecipeError
from temper.models import TaskModel, batch_norms, draws, reads_whole_batch
from temper.recipe import Recipe
from temper.schedules import Phase


@dataclass(frozen=True)
class Moment:
    """When in a run a step is taken."""

    epoch: int
    step: int
    """Within the epoch."""
    progress: float
    """How far the run is: 0..1 of all that is trained by steps."""


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
    is_solved: bool
    """Whether the head, which trains alone, is put at its optimum, and no step is taken."""
    num_solved: int = 0
    """Epochs before this phase that belong to solved ones."""
    num_stepped: int = 1
    """Epochs of the whole run that are trained by steps."""

    @property
    def names(self) -> list[str]:
        """All parameters that train, in the order of the groups."""
        return [name for own in self.trainable.values() for name in own]

    def moment(self, epoch: int, step: int, num_batches: int) -> Moment:
        """That of a step of ``epoch``, which has ``num_batches``."""
        done = epoch - self.num_solved + step / num_batches
        return Moment(epoch, step, done / self.num_stepped)


def plan_phases(recipe: Recipe, model: TaskModel) -> list[PhasePlan]:
    """Every phase of ``recipe`` on ``model``.

    Raises:
        RecipeError: the schedule does not fit the run, its model or its adversary.
    """
    phases = recipe.schedule.plan(recipe.epochs, model.group_names)
    plans = [_plan(recipe, model, phase) for phase in phases]
    lengths = [plan.phase.num_epochs if plan.is_solved else 0 for plan in plans]
    num_stepped = max(1, recipe.epochs - sum(lengths))
    return [
        replace(plan, num_solved=sum(lengths[:index]), num_stepped=num_stepped)
        for index, plan in enumerate(plans)
    ]


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
                f"{recipe.model.backbone} does not have; use 'train'"
            )
        if is_attacked and adversary is not None and adversary.kind == "free":
            raise RecipeError("schedule: batch_norm 'twin' does not go with the adversary 'free'; use 'pgd'")
    if recipe.compute.compile is True and sees_whole_batch(recipe, model, phase):
        raise RecipeError(
            "compute.compile: BatchNorm and dropout of a compiled network cannot see what other workers have "
            "of a batch; use compute.compile=false, workers.num_workers=0 or, without dropout, "
            "schedule.batch_norm=frozen"
        )
    return PhasePlan(
        phase=phase,
        trainable=trainable,
        num_params={g: sum(parameters[name].numel() for name in own) for g, own in trainable.items()},
        lr_factors={g: f for g, f in phase.lr_factors(model.group_names).items() if g in trainable},
        is_attacked=is_attacked,
        is_solved=not is_attacked and _is_head_alone(recipe, trainable, phase),
    )


def sees_whole_batch(recipe: Recipe, model: TaskModel, phase: Phase) -> bool:
    """Whether ``phase`` may train layers whose answers depend on the batch, which is shared out."""
    modes = [(module, True) for module in model.modules()]
    moves_norms = phase.batch_norm != "frozen" and set(phase.trainable) != {"head"}
    has_norms = moves_norms and reads_whole_batch(modes)
    return recipe.workers.num_shares > 1 and (has_norms or draws(modes))


def _is_head_alone(recipe: Recipe, trainable: dict[str, list[str]], phase: Phase) -> bool:
    """Whether only heads train, and the best of them follow from one pass over the images.

    At the start of a run, BatchNorm's statistics are those of its twin, and the source head answers as
    ``lwf`` wants it to. Later these are further losses, for which there is no such solution.
    """
    has_own_losses = phase.batch_norm == "twin" or recipe.objective.term.recalls_source
    return list(trainable) == ["head"] and (phase.start_epoch == 0 or not has_own_losses)
