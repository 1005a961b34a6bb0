"""Sides of a benchmark in processes of their own.

How the C library's allocator happens to lay out memory decides by up to a fifth how long a step takes, and
stays as it is for the life of a process: each round has a new one.
"""

import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from row import Measure

TURNS = 2
"""Of each side in a round."""


@dataclass(frozen=True)
class Side:
    """``make(*arguments)``, by names that pickle knows, is what measures it."""

    make: Callable[..., Measure]
    arguments: tuple[Any, ...] = ()


def in_own_process(make: Callable[..., Measure], *arguments: Any, warm_ups: int = 1) -> Measure:
    """What a side measures after ``warm_ups`` calls, in a process that ends then."""

    def measure() -> float:
        with _process() as pool:
            pool.submit(_set_up, Side(make, arguments), warm_ups).result()
            return pool.submit(_measure).result()

    return measure


def in_turns(mine: Side, theirs: Side) -> tuple[Measure, Measure]:
    """Two sides, whose processes take ``TURNS`` turns in each round; the median of each.

    So a neighbour that slows the machine down for a while slows both. The second measure is of the same
    round as the last call of the first.
    """
    latest: dict[str, float] = {}

    def ours() -> float:
        with _process() as my_pool, _process() as their_pool:
            for ready in [
                pool.submit(_set_up, side, 1) for pool, side in ((my_pool, mine), (their_pool, theirs))
            ]:
                ready.result()
            rounds = [
                (my_pool.submit(_measure).result(), their_pool.submit(_measure).result())
                for _ in range(TURNS)
            ]
        my_s, latest["peer"] = (statistics.median(column) for column in zip(*rounds, strict=True))
        return my_s

    return ours, lambda: latest["peer"]


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


_measures: list[Measure] = []


def _set_up(side: Side, warm_ups: int) -> None:
    _measures.append(side.make(*side.arguments))
    for _ in range(warm_ups):
        _measures[-1]()


def _measure() -> float:
    return _measures[-1]()
