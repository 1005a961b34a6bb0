"""Gradual unfreezing."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from temper.schedules.base import Phase, Schedule


class Gradual(Schedule):
    """The head first, then one more group every ``epochs_per_group``, until all train.

    Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146. ``order`` says which group follows: the one nearest to
    the head, or the one nearest to the input. A run too short for all groups ends before the last of them
    were unfrozen.
    """

    kind: Literal["gradual"] = "gradual"
    epochs_per_group: int = Field(default=1, ge=1)
    order: Literal["from_head", "from_input"] = "from_head"

    @property
    def label(self) -> str:
        direction = "" if self.order == "from_head" else ", from input"
        return f"gradual({self.epochs_per_group}{direction})"

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        *body, head = groups
        queue = body[::-1] if self.order == "from_head" else list(body)
        phases: list[Phase] = []
        start = 0
        for count in range(len(queue) + 1):
            is_last = count == len(queue)
            length = num_epochs - start if is_last else min(self.epochs_per_group, num_epochs - start)
            if length <= 0:
                break
            thawed = {head, *queue[:count]}
            name = f"+ {queue[count - 1]}" if count else head
            phases.append(self.phase(name, start, length, [group for group in groups if group in thawed]))
            start += length
        return phases
