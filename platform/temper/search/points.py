"""Points of a space: one after the other from a seed, or all of a grid."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from temper.search.parameter import in_order
from temper.search.space import SearchSpace
from temper.seeds import derive_seed

BASELINE = "baseline"
"""The name of the trial beside the search."""

MAX_REDRAWS = 200
"""Draws for one point that satisfies the constraints and is new."""

Point = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """How a trial ended; the search reads it to choose the next."""

    status: Literal["finished", "stopped", "failed"]
    values: tuple[float, ...] | None
    """Of the space's objectives, in their order."""
    history: Sequence[tuple[int, float]] = ()
    """Epochs (from 1) with the metric after them."""


class Points(Protocol):
    """Chooses the next point."""

    def propose(self) -> Point | None:
        """The next point's overrides; ``None`` when there is none left."""

    def tell(self, number: int, answer: Answer) -> None:
        """How the trial at the point of this number, from 0, ended."""


class GivenPoints:
    """Points that do not depend on answers."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._left = list(points)

    def propose(self) -> Point | None:
        return self._left.pop(0) if self._left else None

    def tell(self, number: int, answer: Answer) -> None:
        """Nothing is learned."""


def draw_point(space: SearchSpace, *place: int) -> Point:
    """A random point: the same ``place`` gives the same one."""
    point: Point = {}
    for name in in_order(space.parameters):
        parameter = space.parameters[name]
        if parameter.grid is None and parameter.applies(point):
            index, *attempt = place
            seed = derive_seed(space.seed, "point", index, name, *attempt)
            point[name] = parameter.draw(np.random.default_rng(seed))
    return {name: point[name] for name in space.parameters if name in point}


def random_points(space: SearchSpace) -> Iterator[Iterator[Point]]:
    """For each trial, its candidates: the first that is allowed and new is to be taken."""
    crossed = [name for name, parameter in space.parameters.items() if parameter.grid is not None]
    values = [space.parameters[name].grid or [] for name in crossed]
    for index in range(space.samples):
        for combination in itertools.product(*values):
            fixed = dict(zip(crossed, combination, strict=True))
            yield _candidates(space, index, fixed)


def _candidates(space: SearchSpace, index: int, fixed: Point) -> Iterator[Point]:
    for attempt in range(MAX_REDRAWS):
        drawn = draw_point(space, index, *([attempt] if attempt else []))
        point = {**drawn, **fixed}
        yield {
            name: point[name]
            for name in space.parameters
            if name in point and space.parameters[name].applies(point)
        }


def grid_points(space: SearchSpace) -> list[Point]:
    """Every point of a grid, the last parameter changing fastest."""
    names = in_order(space.parameters)
    points: list[Point] = [{}]
    for name in names:
        parameter = space.parameters[name]
        points = [
            extended
            for point in points
            for extended in (
                [{**point, name: value} for value in parameter.levels() or []]
                if parameter.applies(point)
                else [point]
            )
        ]
    return [{name: point[name] for name in space.parameters if name in point} for point in points]
