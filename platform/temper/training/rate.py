"""A learning rate that was measured."""

import math

from pydantic import Field

from temper.spec import Spec

UNMEASURED = 3e-4
"""Where a run is too short to measure."""
RISE = 0.5
"""Of the loss of guessing: a rise of all of it comes late and at rates that differ threefold by chance, for
with many classes the loss waits long at the level of guessing.
"""


class RateTest(Spec):
    """What the range test found."""

    lr: float
    """The rate that was chosen."""
    limit: float | None
    """The rate at which the loss had risen by half of that of guessing; ``null``: none did, or nothing was
    measured.
    """
    rates: list[float] = Field(default_factory=list)
    losses: list[float] = Field(default_factory=list)
    """Smoothed; of the target, at each of ``rates``."""

    @property
    def was_measured(self) -> bool:
        return bool(self.rates)


def limit_of(rates: list[float], losses: list[float], num_classes: int) -> float | None:
    """The rate, between two of ``rates``, where ``losses`` have risen by ``RISE`` * ln(``num_classes``).

    They rise from their least in the first quarter: a loss that is high at the very first rates, and falls,
    is that of the start.
    """
    quarter = losses[: max(1, len(losses) // 4)]
    first = quarter.index(min(quarter)) if quarter else 0
    before: tuple[float, float] | None = None
    allowed = RISE * math.log(num_classes)
    for rate, loss in zip(rates[first:], losses[first:], strict=False):
        rise = loss - losses[first]
        if not math.isfinite(rise) or rise > allowed:
            if before is None or not math.isfinite(rise):
                return before[0] if before else rate
            share = (allowed - before[1]) / (rise - before[1])
            return float(before[0] * (rate / before[0]) ** share)
        before = rate, rise
    return None
