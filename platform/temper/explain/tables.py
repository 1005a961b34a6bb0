"""``sweep.md`` and ``trials.csv``."""

import csv
import io

from temper.explain import wording
from temper.explain.sweep_report import SweepReport
from temper.explain.trials import Trial, parameter_paths
from temper.formats import escape_markdown, markdown_table, percent, spreadsheet_cell


def to_markdown(report: SweepReport) -> str:
    """The page without its charts."""
    totals = [wording.ended(report), wording.spent(report), wording.saved(report)]
    lines = [
        f"# Sweep {escape_markdown(report.name)}",
        "",
        " ".join(line for line in totals if line),
        f"The search maximises {escape_markdown(report.metric)}. Accuracies are in percent.",
        "",
        *(f"- Warning: {escape_markdown(problem)}" for problem in report.problems),
        *([""] if report.problems else []),
        "## The trade-off",
        "",
        escape_markdown(wording.front(report)),
        "",
        *_models(report),
        "## What matters",
        "",
        escape_markdown(wording.importance_told(report)),
        "",
        *_importance(report),
        *_proxy(report),
        "## Best recipes",
        "",
        *_best(report),
        "## All trials",
        "",
        *_trials(report),
    ]
    return "\n".join(lines).rstrip() + "\n"


def featured(report: SweepReport) -> list[Trial]:
    """The front, the finalists and the baseline."""
    return [trial for trial in report.trials if trial.is_on_front or trial.is_finalist or trial.is_baseline]


def _models(report: SweepReport) -> list[str]:
    trials = featured(report)
    if not trials:
        return []
    rows = [
        [
            escape_markdown(trial.trial), trial.role, percent(trial.clean_acc), percent(trial.robust_acc),
            percent(trial.source_acc), *_suite_cells(trial),
        ]
        for trial in trials
    ]  # fmt: skip
    head = ["trial", "", "clean", "robust", "source", "suite: clean", "suite: robust (95 %)", "suite: source"]
    return [*markdown_table(head, rows, "llr"), ""]


def _suite_cells(trial: Trial) -> list[str]:
    suite = trial.suite
    if suite is None:
        return ["", "", ""]
    if suite.is_blocked:
        return ["blocked", "blocked", "blocked"]
    robust = suite.robust_acc
    return [
        percent(suite.clean_acc.value),
        f"{percent(robust.value)} ({percent(robust.low)} to {percent(robust.high)})",
        percent(suite.source_acc),
    ]


def _importance(report: SweepReport) -> list[str]:
    found = report.importance
    rows = [[escape_markdown(one.name), f"{one.share:.2f} ± {one.error:.2f}"] for one in found.parameters]
    warning = [f"Warning: {escape_markdown(found.warning)}.", ""] if found.warning else []
    return [*markdown_table(["parameter", "importance"], rows, "lr"), "", *warning] if rows else []


def _proxy(report: SweepReport) -> list[str]:
    told = wording.agreement(report)
    if told is None or report.proxy is None:
        return []
    warning = [f"Warning: {escape_markdown(report.proxy.warning)}.", ""] if report.proxy.warning else []
    return ["## Cheap metric against suite", "", escape_markdown(told), "", *warning]


def _best(report: SweepReport) -> list[str]:
    if not report.best:
        return ["None: no trial has finished.", ""]
    rows = [
        [str(one.rank), escape_markdown(one.trial), escape_markdown(one.why), f"`{_code(one.command)}`"]
        for one in report.best
    ]
    return [*markdown_table(["", "trial", "why", "run it again"], rows, "l"), ""]


def _trials(report: SweepReport) -> list[str]:
    paths = parameter_paths(report.trials)
    head = ["trial", "status", *(escape_markdown(path) for path in paths), "clean", "robust", "source"]
    head += ["epochs", "train s", "why"]
    rows = [
        [
            escape_markdown(trial.trial), trial.outcome,
            *(escape_markdown(parameter(trial.parameters.get(path))) for path in paths),
            percent(trial.clean_acc), percent(trial.robust_acc), percent(trial.source_acc),
            str(trial.epochs), f"{trial.train_s:.1f}", escape_markdown(wording.why(trial) or ""),
        ]
        for trial in report.trials
    ]  # fmt: skip
    return markdown_table(head, rows, "l" * (2 + len(paths)) + "r")


def _code(text: str) -> str:
    """Text for between two backticks, in a table."""
    return " ".join(text.replace("`", "'").replace("|", "/").split())


def parameter(value: float | str | None) -> str:
    """A parameter's value; nothing where the trial has none."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.4g}"


def to_csv(report: SweepReport) -> str:
    """One row per trial, by name, with everything that is known as it was measured."""
    paths = parameter_paths(report.trials)
    measured = sorted({name for trial in report.trials for name in trial.values})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["trial", "recipe_hash", "status", "is_on_front", "is_finalist", *paths, *measured]
    head += ["epochs", "num_epochs", "train_s", "num_forward", "num_backward"]
    head += ["suite", "suite/clean_acc", "suite/robust_acc", "suite/robust_low", "suite/robust_high"]
    writer.writerow(
        [spreadsheet_cell(name) for name in [*head, "suite/source_acc", "suite/is_blocked", "note"]]
    )
    for trial in sorted(report.trials, key=lambda one: one.trial):
        row: list[object] = [
            trial.trial,
            trial.recipe_hash,
            trial.status,
            trial.is_on_front,
            trial.is_finalist,
        ]
        row += [trial.parameters.get(path) for path in paths]
        row += [trial.values.get(name) for name in measured]
        row += [trial.epochs, trial.num_epochs, trial.train_s, trial.num_forward, trial.num_backward]
        writer.writerow([spreadsheet_cell(value) for value in [*row, *_suite_row(trial), trial.note]])
    return buffer.getvalue()


def _suite_row(trial: Trial) -> list[object]:
    suite = trial.suite
    if suite is None:
        return [None] * 7
    robust = suite.robust_acc
    accuracies = [suite.clean_acc.value, robust.value, robust.low, robust.high, suite.source_acc]
    return [suite.suite, *accuracies, suite.is_blocked]
