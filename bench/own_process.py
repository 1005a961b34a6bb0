"""A side of a benchmark in a process of its own.

How the C library's allocator happens to lay out memory decides by up to a fifth how long a step takes, and
stays as it is for the life of a process: each round has a new one.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from row import Measure


def in_own_process(make: Callable[..., Measure], *arguments: Any) -> Measure:
    """What ``make(*arguments)`` measures the second time, in a process that ends then.

    Functions and arguments have to be such as pickle knows by name.
    """

    def measure() -> float:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_second, make, arguments).result()

    return measure


def _second(make: Callable[..., Measure], arguments: tuple[Any, ...]) -> float:
    measure = make(*arguments)
    measure()
    return measure()
