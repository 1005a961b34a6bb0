"""What a sweep's ledger amounts to: its front, its finalists, its summary."""

from collections.abc import Sequence

from temper.records import LedgerRow
from temper.search.points import BASELINE, Answer
from temper.search.space import SearchSpace
from temper.tradeoff import hypervolume, pareto_front


def values_of(row: LedgerRow, space: SearchSpace) -> tuple[float, ...] | None:
    """The space's objectives at the trial's best epoch; ``None`` where one was not measured."""
    found = [row.metrics.get(f"best/{metric}") for metric in space.all_objectives]
    return None if any(value is None for value in found) else tuple(v for v in found if v is not None)


def answer_of(row: LedgerRow, space: SearchSpace, history: Sequence[tuple[int, float]]) -> Answer:
    """What the search learns from an ended trial."""
    return Answer(row.status, values_of(row, space), history)


def finished_trials(rows: Sequence[LedgerRow], space: SearchSpace) -> list[tuple[str, tuple[float, ...]]]:
    """Finished trials but the baseline, best by ``metric`` first."""
    found = [
        (row.trial, values)
        for row in rows
        if row.status == "finished"
        and row.trial != BASELINE
        and (values := values_of(row, space)) is not None
    ]
    return sorted(found, key=lambda item: (-item[1][0], item[0]))


def front_of(rows: Sequence[LedgerRow], space: SearchSpace) -> tuple[list[str], float | None]:
    """Trials of the front, best by ``metric`` first, and the hypervolume below it."""
    trials = finished_trials(rows, space)
    if not trials:
        return [], None
    points = [values for _, values in trials]
    return [trials[index][0] for index in sorted(pareto_front(points))], hypervolume(points)


def choose_finalists(rows: Sequence[LedgerRow], space: SearchSpace) -> list[str]:
    """The trials that meet the whole suite, and the baseline: the best by ``metric``, then those of the front
    that add most to its hypervolume, then the next best by ``metric``.
    """
    trials = finished_trials(rows, space)
    chosen: list[tuple[str, tuple[float, ...]]] = []
    while trials and len(chosen) < space.finalists:
        best = trials[0] if not chosen else max(trials, key=lambda item: _gain(item[1], chosen))
        chosen.append(best)
        trials.remove(best)
    chosen.sort(key=lambda item: (-item[1][0], item[0]))
    baseline = [row.trial for row in rows if row.trial == BASELINE and row.status == "finished"]
    return [name for name, _ in chosen] + baseline


def _gain(values: tuple[float, ...], chosen: Sequence[tuple[str, tuple[float, ...]]]) -> float:
    """What ``values`` add; ``max`` takes the first of equal ones, which is the best by ``metric``."""
    kept = [other for _, other in chosen]
    return round(hypervolume([*kept, values]) - hypervolume(kept), 12)
