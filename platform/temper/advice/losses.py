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
MIN_FALL_OF_TWO: Final = 0.15
"""The same of two epochs, which show no noise."""
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

    A loss that settles bends upwards, so second differences below 0 are noise: of normal noise with the
    variance v, half of them, whose mean square over all is 3 v. One epoch tells nothing.
    """
    values = np.asarray(losses, float)
    num = max(1, round(len(values) * LAST_FRAC))
    if len(values) < 2 * num or not np.isfinite(values).all():
        return None
    fall = Fall(float(values[-2 * num : -num].mean()), float(values[-num:].mean()), num)
    bends = np.diff(values[len(values) // 2 - 1 :] if len(values) > 5 else values, 2)
    noise = math.sqrt(float(np.minimum(bends, 0.0) @ bends) / len(bends) / 3) if len(bends) else 0.0
    is_clear = fall.before - fall.after > NUM_ERRORS * noise * math.sqrt(2 / num)
    least = MIN_FALL if len(bends) else MIN_FALL_OF_TWO
    return fall if fall.before > 0 and fall.relative >= least and is_clear else None


def guess_loss(num_classes: int) -> float:
    """The cross-entropy of a guess among ``num_classes``."""
    return math.log(max(2, num_classes))


def least_loss(num_classes: int, label_smoothing: float) -> float:
    """The smallest cross-entropy that smoothed labels allow: their entropy."""
    wrong = label_smoothing / num_classes
    right = 1 - label_smoothing + wrong
    rest = (num_classes - 1) * wrong * math.log(wrong) if wrong > 0 else 0.0
    return -right * math.log(right) - rest
