"""The summary of a cross-validation's runs: means, spreads and intervals."""

from collections.abc import Iterable, Sequence

import numpy as np

from temper.data import ShardSet
from temper.records import FoldRun, OverTargets, Spread, TargetSummary
from temper.records.crossval import MEASURES
from temper.statistics import corrected_interval
from temper.storage import named


def measure_spread(runs: Iterable[FoldRun], measure: str, test_to_train: float) -> Spread | None:
    """The spread of ``measure`` over the runs with the status ``ok``; ``None`` where there is none."""
    ok = [run for run in runs if run.status == "ok"]
    if not ok:
        return None
    by_fold = _means((run.fold, getattr(run, measure)) for run in ok)
    by_seed = _means((run.seed, getattr(run, measure)) for run in ok)
    return Spread(
        mean=float(np.mean(by_fold)),
        std_folds=_std(by_fold),
        std_seeds=_std(by_seed),
        interval=corrected_interval(by_fold, test_to_train) if len(by_fold) > 1 else None,
    )


def summarise_target(shards: ShardSet, folds: Sequence[ShardSet], runs: Sequence[FoldRun]) -> TargetSummary:
    """The summary of the ``runs`` on one target; ``folds`` are its images, fold by fold."""
    num_test = sum(len(fold.rows("test")) for fold in folds)
    num_train = sum(len(fold.rows("train")) for fold in folds)
    pool = np.concatenate([fold.rows("test") for fold in folds])
    spreads = {name: measure_spread(runs, name, num_test / num_train) for name in MEASURES}
    counts = {status: sum(run.status == status for run in runs) for status in ("ok", "blocked", "failed")}
    return TargetSummary(
        target=runs[0].target,
        path=named(shards.path),
        fingerprint=shards.fingerprint,
        num_images=num_test,
        num_copies=num_test - len(np.unique(shards.copies[pool])),
        test_to_train=num_test / num_train,
        num_ok=counts["ok"],
        num_blocked=counts["blocked"],
        num_failed=counts["failed"],
        measures={name: spread for name, spread in spreads.items() if spread is not None},
    )


def measures_over_targets(targets: Sequence[TargetSummary]) -> dict[str, OverTargets]:
    """Every measure's mean over ``targets``; empty unless there are several and all have one."""
    if len(targets) < 2 or not all(target.measures for target in targets):
        return {}
    over = {}
    for measure in MEASURES:
        means = [target.measures[measure].mean for target in targets]
        over[measure] = OverTargets(mean=float(np.mean(means)), std=_std(means), num_targets=len(means))
    return over


def _means(values: Iterable[tuple[int, float]]) -> list[float]:
    """The mean of each group of values."""
    groups: dict[int, list[float]] = {}
    for group, value in values:
        groups.setdefault(group, []).append(value)
    return [float(np.mean(groups[group])) for group in sorted(groups)]


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
