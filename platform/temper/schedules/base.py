"""Phases, and what yields them."""

from collections.abc import Sequence

from pydantic import Field

from temper.errors import RecipeError
from temper.spec import Spec


class Phase(Spec):
    """A span of epochs with one fixed set of trainable groups."""

    name: str
    start_epoch: int = Field(ge=0)
    num_epochs: int = Field(ge=1)
    trainable: tuple[str, ...] = Field(min_length=1)
    """Names of the groups that train, from the input to the head."""
    lr_factor: float = Field(default=1.0, gt=0)

    @property
    def end_epoch(self) -> int:
        """The first epoch after the phase."""
        return self.start_epoch + self.num_epochs


class Schedule(Spec):
    """Yields phases; the trainable set is a pure function of the schedule and the epoch."""

    kind: str

    @property
    def label(self) -> str:
        """A short name for tables, such as ``gradual(2)``."""
        return self.kind

    def phases(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        """Consecutive phases that cover exactly ``num_epochs``.

        ``groups`` go from the input to the head, which always trains.

        Raises:
            RecipeError: the schedule asks for more than the model or the run has.
        """
        raise AssertionError(f"{type(self).__name__} does not say which phases it has")


def last_groups(groups: Sequence[str], count: int, kind: str) -> tuple[str, ...]:
    """The ``count`` groups nearest to the output.

    Raises:
        RecipeError: the model has fewer groups.
    """
    if count > len(groups):
        raise RecipeError(
            f"schedule '{kind}': k is {count}, this model has {len(groups)} groups ({', '.join(groups)}); "
            f"allowed: 1..{len(groups)}"
        )
    return tuple(groups[len(groups) - count :])
