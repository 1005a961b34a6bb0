"""Gradual unfreezing."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from temper.schedules.base import Phase, Schedule, last_groups


class Gradual(Schedule):
    """The head first, then one more group every ``epochs_per_group``, until all train.

    Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146. A run too short for all groups ends before the
    groups nearest to the input were unfrozen.
    """

    kind: Literal["gradual"] = "gradual"
    epochs_per_group: int = Field(default=1, ge=1)

    @property
    def label(self) -> str:
        return f"gradual({self.epochs_per_group})"

    def phases(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        phases: list[Phase] = []
        start = 0
        for count in range(1, len(groups) + 1):
            is_last = count == len(groups)
            length = num_epochs - start if is_last else min(self.epochs_per_group, num_epochs - start)
            if length <= 0:
                break
            trainable = last_groups(groups, count, self.kind)
            phases.append(
                Phase(name=f"from {trainable[0]}", start_epoch=start, num_epochs=length, trainable=trainable)
            )
            start += length
        return phases
