"""Jobs side by side: how long they take, and how many fit."""

from collections.abc import Callable, Sequence


def makespan(times: Sequence[float], num_slots: int) -> float:
    """When the last of some jobs is done that begin in their order, as soon as a slot is free."""
    free = [0.0] * num_slots
    for seconds in times:
        first = free.index(min(free))
        free[first] += seconds
    return max(free)


def most_that_fits(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest of 1 to ``limit`` that fits, 0 where none does."""
    return next((epochs for epochs in range(limit, 0, -1) if fits(epochs)), 0)
