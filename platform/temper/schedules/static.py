"""Schedules of a single phase."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from temper.schedules.base import BatchNormPolicy, Phase, Schedule, last_groups


class HeadOnly(Schedule):
    """A linear probe: the backbone stays as it started. Without an adversary one epoch is the whole run."""

    kind: Literal["head_only"] = "head_only"

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        return [self.phase("head", 0, num_epochs, last_groups(groups, 1, self.kind))]


class Full(Schedule):
    """Fine-tuning: everything trains from the first epoch."""

    kind: Literal["full"] = "full"

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        return [self.phase("full", 0, num_epochs, groups)]


class LastK(Schedule):
    """The last ``k`` groups train, the head being the first of them."""

    kind: Literal["last_k"] = "last_k"
    k: int = Field(default=2, ge=1)

    @property
    def label(self) -> str:
        return f"last_k({self.k})"

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        return [self.phase(f"last {self.k}", 0, num_epochs, last_groups(groups, self.k, self.kind))]


class Twins(Schedule):
    """Fine-tuning with a twin that keeps the start's BatchNorm statistics.

    Liu et al. 2023 (TWINS, CVPR), arXiv:2303.11135: both share every weight, and the twin holds on to the
    robust features of the start while the other adapts. Start from a robust checkpoint.
    """

    kind: Literal["twins"] = "twins"
    batch_norm: BatchNormPolicy = "twin"
    twin_weight: float = Field(default=1.0, gt=0)

    def plan(self, num_epochs: int, groups: Sequence[str]) -> list[Phase]:
        return [self.phase("twins", 0, num_epochs, groups, twin_weight=self.twin_weight)]
