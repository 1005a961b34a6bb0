"""A row of the table that `make bench` prints: a ratio of two measurements, taken side by side in one run."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Measure = Callable[[], float]
"""Does the work once; returns what it took or achieved, in the row's unit."""


@dataclass(frozen=True)
class Row:
    """What is measured on both sides, and the ratio (ours by the peer's) that is wanted."""

    name: str
    peer_name: str
    """Against what: a package, or the floor."""
    unit: str
    """``s`` where less is better, or a speed as ``images/s``."""
    goal: str
    """``<= 0.45`` or ``>= 3``."""
    ours: Measure
    peer: Measure
    rounds: int | None = None
    """Fewer than asked for, where a round takes long."""
    warm_ups: int = 1

    def is_won(self, ratio: float) -> bool:
        """Whether ``ratio`` reaches the goal."""
        sign, bound = self.goal.split()
        return ratio <= float(bound) if sign == "<=" else ratio >= float(bound)

    def compare(self, ours: float, peer: float) -> float:
        """What the goal is about."""
        return ours / peer

    def measure(self, rounds: int) -> dict[str, float]:
        """Medians of both sides, taking turns after warming up; median, least and greatest of the ratios."""
        for _ in range(self.warm_ups):
            self.ours(), self.peer()
        pairs = [(self.ours(), self.peer()) for _ in range(min(rounds, self.rounds or rounds))]
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [self.compare(a, b) for a, b in pairs]
        return {
            "ours": mine,
            "peer": theirs,
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "greatest": max(ratios),
        }


class Difference(Row):
    """A row whose goal is about ours minus the peer's, under the name ``ratio``."""

    def compare(self, ours: float, peer: float) -> float:
        return ours - peer


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be measured here."""

    name: str
    reason: str


Rows = Callable[[Path], Iterator[Row | Skipped]]
"""What a script of bench/ offers under the name ``rows``: it makes its data in the folder, checks that both
sides do the same, and yields its rows.
"""
