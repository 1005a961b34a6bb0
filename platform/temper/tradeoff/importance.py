"""How much each swept parameter matters for a metric."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic import Field

from temper.seeds import derive_seed
from temper.spec import Spec

LEAST_TRIALS: Final = 8
NUM_TREES: Final = 300
NUM_DONORS: Final = 24
"""Maximum number of other trials whose value replaces a trial's own."""


class ParameterImportance(Spec):
    """What breaking the tie between one parameter and the metric costs the forest."""

    name: str
    share: float
    """Rise of the squared error out of bag, as a share of the metric's variance; about 0 for what does not
    matter (it may fall below), up to about 2 for what decides alone."""
    error: float
    """Standard error of ``share`` over the trials."""


class Importance(Spec):
    """Importance of each parameter that varies, largest first; or why there is none."""

    num_trials: int
    explained: float | None = None
    """R² out of bag: the share of the metric's variance that the forest predicts, at most 1."""
    parameters: list[ParameterImportance] = Field(default_factory=list)
    reason: str | None = None
    """Why nothing is shown."""
    warning: str | None = None
    """Why what is shown is not to be relied on."""


@dataclass(frozen=True)
class _Parameter:
    """Some columns of the table that the forest sees; NaN where a trial lacks the parameter."""

    name: str
    columns: np.ndarray
    """(trials, 1 for a number, else one per value but the first)"""
    is_categorical: bool

    @property
    def is_absent(self) -> np.ndarray:
        """(trials,) bool."""
        return np.asarray(np.isnan(self.columns[:, 0]))


def importance(points: Sequence[Mapping[str, Any]], values: Sequence[float], *, seed: int = 0) -> Importance:
    """Permutation importance (Breiman 2001) in a random forest, judged out of bag.

    ``points`` are the parameters of ended trials (numbers, texts, whatever JSON can write; conditional ones
    may be absent), ``values`` the metric that each reached. A tree is asked only about trials that it did
    not see, so a parameter that merely fits noise gains nothing. In place of one random permutation, a
    trial's value is exchanged for those of other trials, all or ``NUM_DONORS`` of them. A parameter that is
    there only for some values of another, such as a schedule's period, goes with it when that one is
    exchanged, and is itself exchanged among the trials that have it. Same arguments, same result.
    """
    refusal = _refusal(points, values)
    if refusal is not None:
        return Importance(num_trials=len(points), reason=refusal)
    target = np.asarray(values, dtype=float)
    parameters = _encode(points)
    if not parameters:
        return Importance(num_trials=len(points), reason="no parameter differs between the trials")
    base, exchanged, judged = _errors(parameters, target, seed)
    variance = float(target.var())
    rises = (exchanged - base[:, None])[judged] / variance
    explained = 1 - float(base[judged].mean()) / variance
    found = [
        ParameterImportance(
            name=parameter.name,
            share=float(rise.mean()),
            error=float(rise.std(ddof=1) / math.sqrt(len(rise))),
        )
        for parameter, rise in zip(parameters, rises.T, strict=True)
    ]
    found.sort(key=lambda one: (-one.share, one.name))
    return Importance(
        num_trials=len(points), explained=explained, parameters=found, warning=_warning(explained)
    )


def _refusal(points: Sequence[Mapping[str, Any]], values: Sequence[float]) -> str | None:
    if len(points) != len(values):
        raise ValueError(f"{len(points)} points, but {len(values)} values")
    if len(points) < LEAST_TRIALS:
        return f"{len(points)} ended trials have the metric, and at least {LEAST_TRIALS} are needed"
    if max(values) - min(values) < 1e-12:
        return f"the metric is {values[0]:.4g} in all {len(points)} trials"
    return None


def _warning(explained: float) -> str | None:
    if explained >= 0.1:
        return None
    return (
        "the forest predicts unseen trials little better than their mean would "
        f"(R² {explained:.2f} out of bag): too few trials, or parameters that matter little"
    )


_ABSENT: Final = object()


def _encode(points: Sequence[Mapping[str, Any]]) -> list[_Parameter]:
    """The parameters that vary, by name."""
    found = []
    for name in sorted({name for point in points for name in point}):
        values = [point.get(name, _ABSENT) for point in points]
        if len({_text(value) for value in values}) > 1:
            found.append(_columns(name, values))
    return found


def _text(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)


def _columns(name: str, values: Sequence[Any]) -> _Parameter:
    """Numbers as they are; of anything else, a column of 0 and 1 for each value but the first.

    One code per value would ask two splits of a tree to tell a value in the middle from its neighbours:
    measured, that finds a third of the importance of a schedule.
    """
    present = [value for value in values if value is not _ABSENT]
    if all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in present):
        numbers = [[math.nan if v is _ABSENT else float(v)] for v in values]
        return _Parameter(name, np.array(numbers), is_categorical=False)
    texts = [_text(value) for value in values]
    known = sorted(set(texts) - {""})
    codes = [[math.nan if not text else float(text == one) for one in known[1:] or known] for text in texts]
    return _Parameter(name, np.array(codes), is_categorical=True)


def _errors(
    parameters: Sequence[_Parameter], target: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared errors out of bag: (trials,), with each parameter exchanged (trials, parameters), and which
    trials any tree can judge (trials,).
    """
    from sklearn.ensemble import RandomForestRegressor

    table = np.concatenate([parameter.columns for parameter in parameters], axis=1)
    forest = RandomForestRegressor(
        n_estimators=NUM_TREES, max_features=0.67, random_state=derive_seed(seed, "importance"), n_jobs=1
    )
    forest.fit(table, target)
    unseen = np.ones((NUM_TREES, len(target)), dtype=bool)
    for tree, seen in enumerate(forest.estimators_samples_):
        unseen[tree, seen] = False
    base = (_predict(forest, table, unseen) - target) ** 2
    exchanged = np.tile(base[:, None], (1, len(parameters)))
    for index, parameter in enumerate(parameters):
        moved, pool = _moved(parameters, index)
        if len(pool) > 1:
            generator = np.random.default_rng(derive_seed(seed, "donors", parameter.name))
            order, donors = _donors(pool, generator)
            rows = np.tile(table[order], (len(donors), 1))
            rows[:, moved] = table[donors.reshape(-1)][:, moved]
            answers = _predict(forest, rows, np.tile(unseen[:, order], len(donors)))
            errors = (answers.reshape(donors.shape) - target[order]) ** 2
            exchanged[order, index] = errors.mean(axis=0)
    return base, exchanged, np.asarray(unseen.any(axis=0))


def _moved(parameters: Sequence[_Parameter], index: int) -> tuple[np.ndarray, np.ndarray]:
    """Which columns (bool) are exchanged for a parameter, and among which trials (indices)."""
    chosen = parameters[index]
    with_it = [one is chosen or _decides(chosen, one) for one in parameters]
    moved = np.repeat(with_it, [one.columns.shape[1] for one in parameters])
    # One that decides over others is exchanged everywhere; a conditional one, where it is.
    everywhere = sum(with_it) > 1
    return moved, np.flatnonzero(np.full(len(chosen.columns), everywhere) | ~chosen.is_absent)


def _decides(parent: _Parameter, child: _Parameter) -> bool:
    """Whether each value of ``parent`` either always brings ``child``, a conditional one, or never."""
    absent = child.is_absent
    if not parent.is_categorical or parent is child or absent.all() or not absent.any():
        return False
    values = np.nan_to_num(parent.columns, nan=-1.0)
    return all(
        len(set(absent[(values == value).all(axis=1)].tolist())) == 1 for value in np.unique(values, axis=0)
    )


def _donors(pool: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The trials of ``pool`` in random order, and for each as many others (donors, trials)."""
    order = generator.permutation(pool)
    shifts = np.arange(1, len(pool))
    if len(shifts) > NUM_DONORS:
        shifts = generator.choice(shifts, NUM_DONORS, replace=False)
    return order, np.stack([np.roll(order, -shift) for shift in shifts])


def _predict(forest: Any, rows: np.ndarray, judges: np.ndarray) -> np.ndarray:
    """Mean answer (rows,) of the trees that may judge each row; ``judges`` is (trees, rows)."""
    # Trees take single precision, and say so faster when it is given to them.
    single = rows.astype(np.float32)
    answers = np.stack([tree.predict(single, check_input=False) for tree in forest.estimators_])
    return np.asarray((answers * judges).sum(axis=0) / np.maximum(judges.sum(axis=0), 1))
