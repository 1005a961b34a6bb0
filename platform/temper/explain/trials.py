"""A trial as pages show it: flat parameters, the metrics of its best epoch, what it took."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from temper.explain.gather import BASELINE, CLEAN, ROBUST, SOURCE, Gathered
from temper.records import EvaluationRecord, LedgerRow, Proportion
from temper.spec import Spec


class SuiteResult(Spec):
    """A model under the whole suite, on test images."""

    suite: str
    is_blocked: bool
    """A gate says that the numbers cannot be trusted."""
    clean_acc: Proportion
    robust_acc: Proportion
    source_acc: float | None
    evaluate_s: float


class Trial(Spec):
    """One ended trial."""

    trial: str
    recipe_hash: str
    status: Literal["finished", "stopped", "failed"]
    is_finalist: bool
    """It met, or is to meet, the whole suite."""
    is_on_front: bool
    parameters: dict[str, float | str]
    """Dotted path -> number, or text for anything else."""
    values: dict[str, float]
    """``val/`` metrics of its best epoch, of its last where that is not known; accuracies 0..1."""
    epochs: int
    """Epochs done."""
    num_epochs: int | None
    """Epochs of the whole run, where that is known."""
    train_s: float
    num_forward: int
    num_backward: int
    has_diverged: bool
    """It failed because its loss or its weights were not finite."""
    note: str | None
    """Why it failed or was stopped, on one line."""
    suite: SuiteResult | None

    @property
    def is_baseline(self) -> bool:
        return self.trial == BASELINE

    @property
    def clean_acc(self) -> float | None:
        return self.values.get(CLEAN)

    @property
    def robust_acc(self) -> float | None:
        return self.values.get(ROBUST)

    @property
    def source_acc(self) -> float | None:
        return self.values.get(SOURCE)

    @property
    def role(self) -> str:
        """How charts draw it."""
        if self.is_baseline:
            return "baseline"
        if self.is_on_front:
            return "on the front"
        return "stopped early" if self.status == "stopped" else self.outcome

    @property
    def outcome(self) -> str:
        """Its status, or that it diverged."""
        return "diverged" if self.has_diverged else self.status


def build_trials(gathered: Gathered, front: Sequence[str]) -> list[Trial]:
    """All trials by name; ``front`` are those on the Pareto front."""
    finalists = set(gathered.record.finalists) if gathered.record else set()
    return [
        Trial(
            trial=row.trial,
            recipe_hash=row.recipe_hash,
            status=row.status,
            is_finalist=row.trial in finalists | set(gathered.evaluations),
            is_on_front=row.trial in front,
            parameters={path: flatten(value) for path, value in row.overrides.items()},
            values=values_of(row),
            epochs=int(row.metrics.get("epoch", 0)),
            num_epochs=_num_epochs(row, gathered.recipe),
            train_s=row.cost.get("train_s", 0.0),
            num_forward=int(row.cost.get("num_forward", 0)),
            num_backward=int(row.cost.get("num_backward", 0)),
            has_diverged=row.has_diverged,
            note=_note(row),
            suite=_suite(gathered.evaluations.get(row.trial)),
        )
        for row in gathered.rows
    ]


def values_of(row: LedgerRow) -> dict[str, float]:
    """Validation metrics of the best epoch, which is the one that was kept."""
    best = {
        name.removeprefix("best/"): value
        for name, value in row.metrics.items()
        if name.startswith("best/val/")
    }
    last = {name: value for name, value in row.metrics.items() if name.startswith("val/")}
    return best or last


def flatten(value: Any) -> float | str:
    """A number as it is; ``gradual(epochs_per_group=1)`` for a mapping with a kind; else JSON's text."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    if isinstance(value, dict) and "kind" in value:
        rest = ", ".join(f"{name}={_short(one)}" for name, one in value.items() if name != "kind")
        return f"{value['kind']}({rest})" if rest else str(value["kind"])
    return _short(value)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each dotted path's last names, as many as tell it from the others."""

    def ending(path: str, count: int) -> str:
        return ".".join(path.split(".")[-count:])

    names = {}
    for path in paths:
        count = 1
        while count < len(path.split(".")) and any(
            other != path and ending(other, count) == ending(path, count) for other in paths
        ):
            count += 1
        names[path] = ending(path, count)
    return names


def parameter_paths(trials: Sequence[Trial]) -> list[str]:
    """The paths that the search varied, in the order in which the trials name them."""
    return list(dict.fromkeys(path for trial in trials if not trial.is_baseline for path in trial.parameters))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _num_epochs(row: LedgerRow, recipe: Mapping[str, Any]) -> int | None:
    number = row.overrides.get("epochs", recipe.get("epochs"))
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _note(row: LedgerRow) -> str | None:
    text = row.error if row.status == "failed" else row.reason
    lines = (text or "").strip().splitlines()
    # The last line of a traceback says what went wrong.
    return lines[-1].strip() if lines else None


def _suite(record: EvaluationRecord | None) -> SuiteResult | None:
    if record is None:
        return None
    return SuiteResult(
        suite=f"{record.suite.name} {record.suite.version}",
        is_blocked=record.status == "blocked",
        clean_acc=record.clean_acc,
        robust_acc=record.robust_acc,
        source_acc=record.source_acc.value if record.source_acc else None,
        evaluate_s=record.cost.evaluate_s,
    )
