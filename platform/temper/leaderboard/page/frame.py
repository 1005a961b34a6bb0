"""The plain pictures that stand in a page until, and unless, a script brings charts to life."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 560
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 44


@dataclass(frozen=True)
class Frame:
    """Where a value lies, in pixels of an SVG of ``WIDTH`` x ``height``."""

    x_low: float
    x_high: float
    y_low: float = 0.0
    y_high: float = 1.0
    height: int = 320
    left: int = LEFT

    width = WIDTH
    right = WIDTH - RIGHT
    top = TOP

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(self.left + min(1.0, max(0.0, share)) * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(self.bottom - min(1.0, max(0.0, share)) * (self.bottom - self.top), 1)

    def x_ticks(self, scale: float = 1.0) -> list[float]:
        """Round values of the axis, which shows ``scale`` times what it is about."""
        return [value / scale for value in ticks(self.x_low * scale, self.x_high * scale)]

    @property
    def y_ticks(self) -> list[float]:
        return ticks(self.y_low, self.y_high)


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round values from ``low`` to ``high``."""
    raw = (high - low) / 5
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.9)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def floor_of(values: Sequence[float]) -> float:
    """A tenth below all of the fractions ``values``, at most 0.9, so that an axis never is a point."""
    lowest = min(values, default=0.0)
    return min(0.9, max(0.0, math.floor(lowest * 10) / 10))
