"""Whether the training loss was still falling when training ended, and how low it came."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

LAST_FRAC: Final = 0.2
"""The end of the run: its last fifth, compared with the fifth before it."""
MIN_FALL: Final = 0.05
"""Relative to the loss before."""
NUM_ERRORS: Final = 2.0
"""Standard errors of the epochs' noise that a fall must exceed."""
HIGH_FRAC: Final = 0.1
"""Of ln C, the loss of a guess among C classes: below it, a falling loss is no reason to train longer."""


@dataclass(frozen=True)
class Fall:
    """Mean losses of the last ``num_epochs`` epochs and of as many before them."""

    before: float
    after: float
    num_epochs: int

    @property
    def relative(self) -> float:
        return (self.before - self.after) / self.before


def find_fall(losses: Sequence[float]) -> Fall | None:
    """The fall of ``losses`` (one per epoch) at the end of the run; ``None`` where it had settled.

    The noise is what is left of a loss beside the line between its neighbours: from three epochs on the
    median of |second differences|, of normal noise 0.6745 * sqrt(6) standard deviations. A curve that bends
    counts as noise as well, so a run that is just settling is left in peace. One epoch tells nothing.
    """
    values = np.asarray(losses, float)
    num = max(1, round(len(values) * LAST_FRAC))
    if len(values) < 2 * num or not np.isfinite(values).all():
        return None
    fall = Fall(float(values[-2 * num : -num].mean()), float(values[-num:].mean()), num)
    bends = np.abs(np.diff(values[len(values) // 2 - 1 :] if len(values) > 5 else values, 2))
    noise = float(np.median(bends)) / (0.6745 * math.sqrt(6)) if len(bends) else 0.0
    is_clear = fall.before - fall.after > NUM_ERRORS * noise * math.sqrt(2 / num)
    return fall if fall.before > 0 and fall.relative >= MIN_FALL and is_clear else None


def guess_loss(num_classes: int) -> float:
    """The cross-entropy of a guess among ``num_classes``."""
    return math.log(max(2, num_classes))


def least_loss(num_classes: int, label_smoothing: float) -> float:
    """The smallest cross-entropy that smoothed labels allow: their entropy."""
    wrong = label_smoothing / num_classes
    right = 1 - label_smoothing + wrong
    rest = (num_classes - 1) * wrong * math.log(wrong) if wrong > 0 else 0.0
    return -right * math.log(right) - rest
