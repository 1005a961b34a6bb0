"""A side of a benchmark in a process of its own.

How the C library's allocator happens to lay out memory decides by up to a fifth how long a step takes, and
stays as it is for the life of a process: each round has a new one.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from row import Measure


def in_own_process(make: Callable[..., Measure], *arguments: Any, warm_ups: int = 1) -> Measure:
    """What ``make(*arguments)`` measures after ``warm_ups`` calls, in a process that ends then.

    Functions and arguments have to be such as pickle knows by name.
    """

    def measure() -> float:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_warmed_up, make, arguments, warm_ups).result()

    return measure


def _warmed_up(make: Callable[..., Measure], arguments: tuple[Any, ...], warm_ups: int) -> float:
    measure = make(*arguments)
    for _ in range(warm_ups):
        measure()
    return measure()
