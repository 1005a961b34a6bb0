"""A sweep's report: gathered, worked out, and written."""

from pathlib import Path

from temper.explain.best import by_metric, choose_best, write_best
from temper.explain.gather import gather
from temper.explain.page import render_page
from temper.explain.summary import (
    choose_objectives,
    count_totals,
    find_agreement,
    find_front,
    find_importance,
)
from temper.explain.sweep_report import SweepReport
from temper.explain.tables import to_csv, to_markdown
from temper.explain.trials import Trial, build_trials
from temper.records import write_atomic


def build_report(folder: Path) -> SweepReport:
    """Write ``report/`` into the sweep's folder, also of a sweep that still runs.

    The same ledger, in whatever order its trials ended, gives the same files byte for byte.

    Raises:
        RecordError: no ledger in ``folder``, or one that is damaged.
    """
    gathered = gather(folder)
    objectives = choose_objectives(gathered)
    front, volume = find_front(gathered, objectives)
    trials = _ordered(build_trials(gathered, front), gathered.metric)
    problems = list(gathered.problems)
    out = gathered.folder.path / "report"
    best = choose_best(gathered, trials)
    record = gathered.record
    report = SweepReport(
        name=record.name if record else str(gathered.recipe.get("name", "sweep")),
        metric=gathered.metric,
        objectives=objectives,
        is_ended=record is not None,
        is_complete=record is not None and record.is_complete,
        totals=count_totals(trials),
        trials=trials,
        front=[trial.trial for trial in trials if trial.is_on_front],
        hypervolume=volume,
        importance=find_importance(trials, gathered.metric),
        proxy=find_agreement(gathered, trials),
        best=write_best(gathered, best, out, problems),
        problems=problems,
        log_parameters=[
            path
            for path in {path: 0 for trial in trials for path in trial.parameters}
            if gathered.is_log(path)
        ],
        page=out / "sweep.html",
    )
    write_atomic(report.page, render_page(report))
    write_atomic(out / "sweep.md", to_markdown(report))
    write_atomic(out / "trials.csv", to_csv(report))
    return report


def _ordered(trials: list[Trial], metric: str) -> list[Trial]:
    order = {"finished": 0, "stopped": 1, "failed": 2}
    return sorted(by_metric(trials, metric), key=lambda trial: (trial.is_baseline, order[trial.status]))
