"""The sentences of a report, the same on the page and in Markdown."""

from temper.explain.marks import joined
from temper.explain.summary import NAMES
from temper.explain.sweep_report import SweepReport
from temper.explain.trials import Trial
from temper.formats import count, duration

NUM_NAMED = 12
"""Trials that a sentence names."""


def ended(report: SweepReport) -> str:
    """How the trials ended, and whether there are more to come."""
    totals = report.totals
    if not totals.num_trials:
        return "No trial has ended yet."
    parts = [
        f"{totals.num_finished or 'none'} finished",
        f"{totals.num_stopped or 'none'} stopped early",
        f"{totals.num_failed or 'none'} failed",
    ]
    told = diverged(report)
    text = f"{plural(totals.num_trials, 'trial')} ended: {joined(parts)}{f' ({told})' if told else ''}."
    if not report.is_ended:
        return f"{text} The sweep is running or was interrupted: it has no sweep.json yet."
    return text if report.is_complete else f"{text} Time ran out before all planned trials were run."


def diverged(report: SweepReport) -> str | None:
    """Which trials diverged, the first of them by name."""
    names = sorted(trial.trial for trial in report.trials if trial.has_diverged)
    if not names:
        return None
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return f"diverged: {', '.join(names[:NUM_NAMED])}{more}"


def spent(report: SweepReport) -> str:
    """Compute that the sweep took."""
    totals = report.totals
    text = (
        f"Training took {duration(totals.train_s)}, {count(totals.num_forward)} forward and "
        f"{count(totals.num_backward)} backward passes of an image, summed over all trials"
    )
    num = sum(trial.suite is not None for trial in report.trials)
    if num:
        text += f"; evaluating {plural(num, 'model')} with the suite took {duration(totals.evaluate_s)}"
    return f"{text}."


def saved(report: SweepReport) -> str | None:
    """What stopping early saved, where any trial was stopped."""
    totals = report.totals
    if not totals.num_stopped or totals.full_passes <= totals.passes:
        return None
    text = (
        f"Stopping {plural(totals.num_stopped, 'trial')} early saved an estimated {100 * totals.saved:.0f} % "
        f"of the passes: {count(totals.passes)} instead of {count(totals.full_passes)} for every trial in "
        "full, assuming that an epoch that was not run costs as much as those before it"
    )
    if totals.num_unknown:
        text += f"; for {plural(totals.num_unknown, 'stopped trial')} the saving is unknown"
    return f"{text}."


def front(report: SweepReport) -> str:
    """What the front is, and how much it covers."""
    if len(report.objectives) < 2:
        return "There is no front: fewer than two objectives were measured."
    if not report.front:
        return "There is no front yet: no finished trial has all objectives measured."
    names = joined([objective(name) for name in report.objectives])
    size = len(report.front)
    text = (
        f"{size} of the finished trials {'is' if size == 1 else 'are'} on the Pareto front of {names} on "
        "validation images: no other trial is at least as good in all of them and better in one."
    )
    if report.hypervolume is not None:
        text += f" Hypervolume {report.hypervolume:.3f}: the share of the unit cube that the front dominates."
    return text


def agreement(report: SweepReport) -> str | None:
    """Rank correlation of the cheap metric and the suite."""
    proxy = report.proxy
    if proxy is None:
        return None
    return (
        f"The search compared trials by {objective(report.metric)} on validation images. Over the "
        f"{plural(proxy.num_models, 'model')} evaluated with the suite, its rank correlation with robust "
        f"accuracy under the suite is {proxy.kendall:.2f} (Kendall's tau-b) and {proxy.spearman:.2f} "
        "(Spearman's rho); 1: the same order, 0: unrelated, -1: the reverse."
    )


def importance_told(report: SweepReport) -> str:
    """How the importances were found, or why there are none."""
    found = report.importance
    if found.reason is not None:
        return f"Not shown: {found.reason}."
    assert found.explained is not None
    return (
        f"Increase in a random forest's out-of-bag error for {objective(report.metric)} when a parameter's "
        "values are permuted; about 0 for a parameter that does not matter. Lines show one standard error "
        f"over {plural(found.num_trials, 'trial')}. The forest explains "
        f"{100 * max(0.0, found.explained):.0f} % of the variance. Stopped trials count with the best value "
        "that they reached."
    )


def sentence(text: str) -> str:
    """A message as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def objective(metric: str) -> str:
    """A metric's name for people."""
    return NAMES.get(metric, metric)


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def why(trial: Trial) -> str | None:
    """Why a trial ended as it did; of the baseline, what was set for it."""
    if trial.note is None and trial.is_baseline and trial.parameters:
        return ", ".join(f"{path}: {value}" for path, value in trial.parameters.items())
    return trial.note
