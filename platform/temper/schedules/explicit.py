"""Phases as the recipe lists them."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from temper.errors import RecipeError
from temper.schedules.base import BatchNormPolicy, Phase, Schedule
from temper.spec import Spec


class PhaseSpec(Spec):
    """One phase of a list. ``null`` takes the schedule's own setting."""

    epochs: int = Field(ge=1)
    name: str | None = None
    groups: Literal["all"] | tuple[str, ...] = "all"
    """Groups that train beside the head."""
    lr_factor: float = Field(default=1.0, gt=0)
    group_decay: float | None = Field(default=None, ge=1)
    batch_norm: BatchNormPolicy | None = None
    twin_weight: float = Field(default=1.0, gt=0)
    is_attacked: bool = True


class Phases(Schedule):
    """An explicit list of phases, whose epochs add up to the run's."""

    kind: Literal["phases"] = "phases"
    phases: tuple[PhaseSpec, ...] = Field(min_length=1)

    @property
    def label(self) -> str:
        return f"phases({len(self.phases)})"

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        total = sum(spec.epochs for spec in self.phases)
        if total != num_epochs:
            raise RecipeError(
                f"schedule.phases: they last {total} epochs, the run {num_epochs}; make both the same"
            )
        planned: list[Phase] = []
        for index, spec in enumerate(self.phases):
            names = groups if spec.groups == "all" else spec.groups
            unknown = [name for name in names if name not in groups]
            if unknown:
                raise RecipeError(
                    f"schedule.phases.{index}.groups: no group '{unknown[0]}'. Groups: {', '.join(groups)}"
                )
            fields = spec.model_dump(exclude={"epochs", "name", "groups"}, exclude_none=True)
            trainable = [group for group in groups if group in names or group == groups[-1]]
            start = planned[-1].end_epoch if planned else 0
            planned.append(
                self.phase(spec.name or f"phase {index + 1}", start, spec.epochs, trainable, **fields)
            )
        return planned
