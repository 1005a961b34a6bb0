"""The weight of the source over a run."""

import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from temper.spec import Spec


class ConstantAlpha(Spec):
    """``objective.alpha`` from the first step to the last."""

    kind: Literal["constant"] = "constant"

    def factor(self, progress: float) -> float:
        """Factor of ``objective.alpha`` at ``progress`` 0..1 of the run."""
        return 1.0


class LinearAlpha(Spec):
    """A straight line from alpha to ``end`` times alpha."""

    kind: Literal["linear"] = "linear"
    end: float = Field(default=0.0, ge=0, le=100)

    def factor(self, progress: float) -> float:
        """Factor of ``objective.alpha`` at ``progress`` 0..1 of the run."""
        return 1 + (self.end - 1) * progress


class CosineAlpha(Spec):
    """Half a cosine from alpha to ``end`` times alpha."""

    kind: Literal["cosine"] = "cosine"
    end: float = Field(default=0.0, ge=0, le=100)

    def factor(self, progress: float) -> float:
        """Factor of ``objective.alpha`` at ``progress`` 0..1 of the run."""
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * progress))


class ProgressAlpha(Spec):
    """Straight lines between points: ``at`` of the run (0..1, rising), the ``factors`` of alpha there."""

    kind: Literal["progress"] = "progress"
    at: tuple[float, ...] = Field(min_length=2)
    factors: tuple[float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _points_rise_through_the_run(self) -> Self:
        if len(self.at) != len(self.factors):
            raise ValueError(f"at has {len(self.at)} points, factors {len(self.factors)}; give one for each")
        if list(self.at) != sorted(set(self.at)) or not 0 <= self.at[0] <= self.at[-1] <= 1:
            raise ValueError(f"at must rise within 0..1, got {list(self.at)}")
        if min(self.factors) < 0:
            raise ValueError(f"factors of alpha cannot be negative, got {min(self.factors)}")
        return self

    def factor(self, progress: float) -> float:
        """Factor of ``objective.alpha`` at ``progress`` 0..1 of the run."""
        return float(np.interp(progress, self.at, self.factors))


AnyAlphaSchedule = Annotated[
    ConstantAlpha | LinearAlpha | CosineAlpha | ProgressAlpha, Field(discriminator="kind")
]
