"""The strength of the attack over a run."""

from typing import Annotated, Literal

from pydantic import Field

from temper.spec import Spec


class ConstantEps(Spec):
    """The same eps from the first step to the last."""

    kind: Literal["constant"] = "constant"

    def factor(self, progress: float) -> float:
        """Factor 0..1 of eps at ``progress`` 0..1 of the run."""
        return 1.0


class RampEps(Spec):
    """A linear rise from ``start`` times eps, complete after ``ramp_frac`` of the run.

    Helps where the start is not robust (arXiv:2509.23325).
    """

    kind: Literal["ramp"] = "ramp"
    start: float = Field(default=0.0, ge=0, lt=1)
    ramp_frac: float = Field(default=0.5, gt=0, le=1)

    def factor(self, progress: float) -> float:
        """Factor 0..1 of eps at ``progress`` 0..1 of the run."""
        return min(1.0, self.start + (1 - self.start) * progress / self.ramp_frac)


AnyEpsSchedule = Annotated[ConstantEps | RampEps, Field(discriminator="kind")]
