"""A learning rate that was measured."""

import itertools
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
    """The rate at which the loss rose for good by half of that of guessing; ``null``: none did, or nothing
    was measured.
    """
    rates: list[float] = Field(default_factory=list)
    losses: list[float] = Field(default_factory=list)
    """Smoothed; of the target, at each of ``rates``."""

    @property
    def was_measured(self) -> bool:
        return bool(self.rates)


def limit_of(rates: list[float], losses: list[float], num_classes: int) -> float | None:
    """The rate, between two of ``rates``, where ``losses`` rise for good by ``RISE`` * ln(``num_classes``).

    They rise from their least in the first quarter: a loss that is high at the very first rates, and falls,
    is that of the start. The last time counts: Adam's first steps may raise the loss of a start that soon
    learns at much higher rates what it had lost.
    """
    quarter = losses[: max(1, len(losses) // 4)]
    first = quarter.index(min(quarter)) if quarter else 0
    allowed = RISE * math.log(num_classes)
    points = [(rate, loss - losses[first]) for rate, loss in zip(rates, losses, strict=False)][first:]
    if not points or points[-1][1] <= allowed:
        return None
    for (rate, rise), (next_rate, next_rise) in reversed(list(itertools.pairwise(points))):
        if rise <= allowed:
            share = (allowed - rise) / (next_rise - rise) if math.isfinite(next_rise) else 0.0
            return float(rate * (next_rate / rate) ** share)
    return points[0][0]
