"""Phases, and the schedules that yield them."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from temper.errors import RecipeError
from temper.spec import Spec

BatchNormPolicy = Literal["train", "frozen", "twin"]
"""What BatchNorm does in the update: ``train`` uses each batch's statistics and moves the running ones,
``frozen`` uses the running ones as they are, ``twin`` does both, the second with the start's own.
"""


class Phase(Spec):
    """A span of epochs with one fixed set of trainable groups."""

    name: str
    start_epoch: int = Field(ge=0)
    num_epochs: int = Field(ge=1)
    trainable: tuple[str, ...] = Field(min_length=1)
    """Names of the groups that train, from the input to the head."""
    lr_factor: float = Field(default=1.0, gt=0)
    group_decay: float = Field(default=1.0, ge=1)
    """The learning rate of a group is that of the next one nearer to the head, divided by this."""
    batch_norm: BatchNormPolicy = "train"
    twin_weight: float = Field(default=1.0, gt=0)
    """Of the loss under the start's statistics, where ``batch_norm`` is ``twin``."""
    is_attacked: bool = True
    """Whether the recipe's adversary takes part."""

    @property
    def end_epoch(self) -> int:
        """The first epoch after the phase."""
        return self.start_epoch + self.num_epochs

    def lr_factors(self, groups: Sequence[str]) -> dict[str, float]:
        """Group -> factor of the recipe's learning rate, for those that train.

        Geometric over all ``groups`` from the head down (Howard and Ruder 2018, arXiv:1801.06146), so that
        a group has the same rate whichever others train.
        """
        depth = {group: index for index, group in enumerate(reversed(groups))}
        return {group: self.lr_factor / self.group_decay ** depth[group] for group in self.trainable}


class Schedule(Spec):
    """Yields phases; the trainable set is a pure function of the schedule and the epoch."""

    kind: str
    group_decay: float = Field(default=1.0, ge=1, le=100)
    """Discriminative learning rates: each group nearer to the input has its rate divided by this."""
    batch_norm: BatchNormPolicy = "train"

    @property
    def label(self) -> str:
        """A short name for tables, such as ``gradual(2)``."""
        return self.kind

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        """Consecutive phases that cover exactly ``num_epochs``.

        ``groups`` go from the input to the head, which always trains.

        Raises:
            RecipeError: the schedule asks for more than the model or the run has.
        """
        raise AssertionError(f"{type(self).__name__} does not say which phases it has")

    def phase(self, name: str, start: int, length: int, trainable: Sequence[str], **fields: Any) -> Phase:
        """A phase with the schedule's own settings."""
        own = {"group_decay": self.group_decay, "batch_norm": self.batch_norm}
        return Phase(
            name=name, start_epoch=start, num_epochs=length, trainable=tuple(trainable), **{**own, **fields}
        )


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
