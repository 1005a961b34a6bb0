"""A sweep in numbers: what it took, what stopping early saved, and how the trade-off lies."""

from collections.abc import Sequence

from temper.explain.gather import BASELINE, CLEAN, ROBUST, SOURCE, Gathered
from temper.explain.trials import Trial, values_of
from temper.records import ProxyAgreement
from temper.spec import Spec
from temper.tradeoff import Importance, hypervolume, importance, pareto_front, rank_agreement

NAMES = {CLEAN: "clean accuracy", ROBUST: "robust accuracy", SOURCE: "source accuracy"}


class Totals(Spec):
    """Trials and compute of a sweep; passes count per image."""

    num_trials: int
    num_finished: int
    num_stopped: int
    num_failed: int
    train_s: float
    evaluate_s: float
    num_forward: int
    num_backward: int
    full_passes: int
    """Forward and backward passes that the stopped trials would have taken as well, estimated: each epoch
    that one of them did not run costs as much as those that it ran on average."""
    num_unknown: int
    """Stopped trials of which that cannot be said."""

    @property
    def passes(self) -> int:
        return self.num_forward + self.num_backward

    @property
    def saved(self) -> float:
        """Share 0..1 of the passes that stopping early saved."""
        return 1 - self.passes / self.full_passes if self.full_passes else 0.0


def count_totals(trials: Sequence[Trial]) -> Totals:
    """Over all trials, the baseline among them."""
    full, unknown = 0.0, 0
    for trial in trials:
        passes = float(trial.num_forward + trial.num_backward)
        if trial.status == "stopped" and trial.epochs > 0 and trial.num_epochs:
            passes = passes * max(trial.epochs, trial.num_epochs) / trial.epochs
        elif trial.status == "stopped":
            unknown += 1
        full += passes
    count = {
        status: sum(trial.status == status for trial in trials)
        for status in ("finished", "stopped", "failed")
    }
    return Totals(
        num_trials=len(trials),
        num_finished=count["finished"],
        num_stopped=count["stopped"],
        num_failed=count["failed"],
        train_s=sum(trial.train_s for trial in trials),
        evaluate_s=sum(trial.suite.evaluate_s for trial in trials if trial.suite),
        num_forward=sum(trial.num_forward for trial in trials),
        num_backward=sum(trial.num_backward for trial in trials),
        full_passes=round(full),
        num_unknown=unknown,
    )


def choose_objectives(gathered: Gathered) -> list[str]:
    """What the front is drawn over: the sweep's own objectives where it had several, else what was measured
    of clean, robust and source accuracy.
    """
    own = gathered.record.objectives if gathered.record else gathered.space.get("objectives") or []
    if isinstance(own, list) and len(own) > 1:
        return [str(name) for name in own]
    measured = [values_of(row) for row in gathered.rows if row.status == "finished"]
    return [name for name in NAMES if any(name in values for values in measured)]


def find_front(gathered: Gathered, objectives: Sequence[str]) -> tuple[list[str], float | None]:
    """Finished trials that no other finished trial dominates, and the hypervolume; never the baseline."""
    known = {
        row.trial: [values_of(row)[name] for name in objectives]
        for row in gathered.rows
        if row.status == "finished" and row.trial != BASELINE and set(objectives) <= set(values_of(row))
    }
    if not known or len(objectives) < 2:
        return [], None
    names = list(known)
    front = [names[index] for index in pareto_front(list(known.values()))]
    volume = hypervolume([known[name] for name in front]) if len(objectives) <= 4 else None
    return front, volume


def find_importance(trials: Sequence[Trial], metric: str) -> Importance:
    """Over ended trials of the search that have the metric; stopped ones count with what they reached."""
    judged = [trial for trial in trials if not trial.is_baseline and metric in trial.values]
    judged = [trial for trial in judged if trial.status != "failed"]
    return importance([trial.parameters for trial in judged], [trial.values[metric] for trial in judged])


def proxy_pairs(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Trials of which both the metric of the search and a robust accuracy to be trusted are known.

    The baseline, weak by design, would lend the metric an agreement that says nothing of its rivals. None
    where the search went by another metric than a robust one.
    """
    if "robust" not in metric:
        return []
    return [
        trial
        for trial in trials
        if metric in trial.values
        and not trial.is_baseline
        and trial.suite is not None
        and not trial.suite.is_blocked
    ]


def find_agreement(gathered: Gathered, trials: Sequence[Trial]) -> ProxyAgreement | None:
    """As the sweep recorded it, else worked out from the records."""
    if gathered.record is not None and gathered.record.proxy is not None:
        return gathered.record.proxy
    pairs = proxy_pairs(trials, gathered.metric)
    if not pairs:
        return None
    return rank_agreement(
        [trial.values[gathered.metric] for trial in pairs],
        [trial.suite.robust_acc.value for trial in pairs if trial.suite],
    )
