"""How far a fit is, from the epochs of its trials."""

from temper.fitting.plan import FitPlan
from temper.search import BASELINE


class Remaining:
    """The time that is left, as the epochs so far let it expect."""

    def __init__(self, plan: FitPlan) -> None:
        self._plan = plan
        self._done: dict[str, float] = {}

    def result(self, trial: str, epoch: float) -> None:
        """``epoch`` of ``trial`` has ended, counted from 1."""
        plan = self._plan
        epochs, seconds = (
            (plan.plain_epochs, plan.plain_s)
            if trial == BASELINE
            else (plan.hardened_epochs, plan.hardened_s)
        )
        self._done[trial] = min(1.0, epoch / epochs) * seconds

    def ended(self, trial: str) -> None:
        """All of ``trial`` is done, be it early."""
        self._done[trial] = self._plan.plain_s if trial == BASELINE else self._plan.hardened_s

    @property
    def share(self) -> float:
        """Of the trainings that is done: 0..1."""
        plan = self._plan
        return min(1.0, sum(self._done.values()) / (plan.plain_s + plan.num_hardened * plan.hardened_s))

    def seconds(self, elapsed: float) -> float:
        """Until the page, after ``elapsed`` seconds of training: as planned at first, then as measured."""
        planned = (1 - self.share) * self._plan.sweep_s
        if self.share > 0:
            measured = elapsed * (1 - self.share) / self.share
            planned = (1 - self.share) * planned + self.share * measured
        return planned + self._plan.evaluation_s
