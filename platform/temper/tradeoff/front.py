"""The Pareto front and its hypervolume; every objective is maximised."""

from collections.abc import Sequence
from typing import Final

import numpy as np

MAX_OBJECTIVES: Final = 4
"""Slicing is exact for any number, but its cost grows with the power of it."""


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices, ascending, of the ``points`` (N objectives each) that no other point dominates.

    A point dominates another that it is nowhere below and somewhere above; equal points all stay.

    Raises:
        ValueError: points of different lengths, or a value that is not finite.
    """
    values = _table(points)
    return [
        index
        for index, value in enumerate(values)
        if not ((values >= value).all(axis=1) & (values > value).any(axis=1)).any()
    ]


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float] | None = None) -> float:
    """Volume between ``reference`` (the origin) and the ``points``, 1 to 4 objectives each; exact.

    What lies below the reference in any objective covers nothing. Of fractions it is a share 0..1 of the
    unit cube. By slicing objectives (Zitzler 1999): a slab for each value of the last objective, times the
    volume, in one dimension less, of the points that reach it.

    Raises:
        ValueError: more than 4 objectives, a reference of another length, or a value that is not finite.
    """
    values = _table(points)
    if not len(values):
        return 0.0
    num_objectives = values.shape[1]
    if num_objectives > MAX_OBJECTIVES:
        raise ValueError(f"hypervolume takes 1 to {MAX_OBJECTIVES} objectives, got {num_objectives}")
    base = np.zeros(num_objectives) if reference is None else np.asarray(reference, dtype=float)
    if base.shape != (num_objectives,):
        raise ValueError(f"reference has {base.size} values, the points have {num_objectives}")
    above = values - base
    return _volume(above[(above > 0).all(axis=1)])


def _table(points: Sequence[Sequence[float]]) -> np.ndarray:
    """The points as (count, objectives)."""
    if not len(points):
        return np.zeros((0, 1))
    lengths = {len(point) for point in points}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"points need the same number of objectives, at least one; got {sorted(lengths)}")
    values = np.asarray(points, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("points need finite values")
    return values


def _volume(points: np.ndarray) -> float:
    """Volume from the origin to positive ``points`` (count, objectives)."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    ordered = points[np.argsort(-points[:, -1], kind="stable")]
    depths = ordered[:, -1] - np.append(ordered[1:, -1], 0.0)
    if points.shape[1] == 2:
        return float(depths @ np.maximum.accumulate(ordered[:, 0]))
    total, kept = 0.0, np.zeros((0, points.shape[1] - 1))
    for point, depth in zip(ordered, depths, strict=True):
        kept = _with(kept, point[:-1])
        if depth > 0:
            total += float(depth) * _volume(kept)
    return total


def _with(front: np.ndarray, point: np.ndarray) -> np.ndarray:
    """``front`` with ``point``, less what is covered by another."""
    if (front >= point).all(axis=1).any():
        return front
    return np.vstack([front[~(point >= front).all(axis=1)], point])
