"""What a sweep's report says."""

from pathlib import Path

from temper.explain.best import BestRecipe
from temper.explain.summary import Totals
from temper.explain.trials import Trial
from temper.records import ProxyAgreement
from temper.spec import Spec
from temper.tradeoff import Importance


class SweepReport(Spec):
    """What a sweep found."""

    name: str
    metric: str
    """What the sweep searched by."""
    objectives: list[str]
    """What the front is drawn over."""
    is_ended: bool
    """``sweep.json`` is there."""
    is_complete: bool
    """All planned trials were run, as far as is known."""
    totals: Totals
    trials: list[Trial]
    """Best by the metric first: finished, then stopped, then failed; the baseline last."""
    front: list[str]
    """Names on the Pareto front, best by the metric first."""
    hypervolume: float | None
    importance: Importance
    proxy: ProxyAgreement | None
    """``None`` where no model was evaluated with the suite."""
    best: list[BestRecipe]
    problems: list[str]
    """What could not be read."""
    log_parameters: list[str]
    """Dotted paths that were drawn on a logarithmic scale."""
    page: Path
    """``sweep.html``; beside it lie ``sweep.md``, ``trials.csv`` and ``best/``."""

    def trial(self, name: str) -> Trial:
        """The trial of that name."""
        return next(trial for trial in self.trials if trial.trial == name)
