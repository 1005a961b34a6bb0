"""What a kind of corruption is: a function, and its settings at each severity and image size."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Group = Literal["common", "medical", "xray", "lighting", "weather"]
"""Sets of kinds that a recipe can ask for."""
Five = tuple[float, float, float, float, float]

SEVERITIES = (1, 2, 3, 4, 5)
SIDES = (32, 64, 224)
"""The image sizes that settings are given for."""


@dataclass(frozen=True)
class Corruption:
    """A kind: a function of images (B,3,H,W in [0,1]) and draws, and its settings.

    ``settings``: name -> the values at severity 1..5, for each of ``SIDES`` (or one for all of them).
    """

    group: Group
    """The set that it was made for; others may hold it too."""
    apply: Callable[..., Tensor]
    settings: Mapping[str, tuple[Five, ...]]

    @property
    def is_random(self) -> bool:
        """Whether the seed matters (the function reads its draws)."""
        return "draws" in inspect.signature(self.apply).parameters

    def settings_at(self, severity: int, side: int) -> dict[str, float]:
        """The settings for images whose shorter side has ``side`` pixels.

        Straight lines between the sizes. Smaller images are treated as the smallest size, larger ones as the
        largest, except that lengths in pixels (``*_px``) grow with the image.
        """
        values = {}
        for name, tables in self.settings.items():
            column = [table[severity - 1] for table in tables]
            values[name] = _between(column, side) if len(column) > 1 else column[0]
            if name.endswith("_px") and side > SIDES[-1]:
                values[name] *= side / SIDES[-1]
        return values


def _between(column: list[float], side: int) -> float:
    """The value at ``side`` on straight lines through ``column`` at ``SIDES``."""
    left, right = (0, 1) if side <= SIDES[1] else (1, 2)
    share = (side - SIDES[left]) / (SIDES[right] - SIDES[left])
    return column[left] + min(max(share, 0.0), 1.0) * (column[right] - column[left])
