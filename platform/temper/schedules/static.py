"""Schedules of a single phase."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from temper.schedules.base import Phase, Schedule, last_groups


class HeadOnly(Schedule):
    """A linear probe: the backbone stays as it started."""

    kind: Literal["head_only"] = "head_only"

    def phases(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        return [
            Phase(
                name="head", start_epoch=0, num_epochs=num_epochs, trainable=last_groups(groups, 1, self.kind)
            )
        ]


class Full(Schedule):
    """Fine-tuning: everything trains from the first epoch."""

    kind: Literal["full"] = "full"

    def phases(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        return [Phase(name="full", start_epoch=0, num_epochs=num_epochs, trainable=tuple(groups))]


class LastK(Schedule):
    """The last ``k`` groups train, the head being the first of them."""

    kind: Literal["last_k"] = "last_k"
    k: int = Field(default=2, ge=1)

    @property
    def label(self) -> str:
        return f"last_k({self.k})"

    def phases(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        trainable = last_groups(groups, self.k, self.kind)
        return [Phase(name=f"last {self.k}", start_epoch=0, num_epochs=num_epochs, trainable=trainable)]
