"""How pixels of more than 8 bits become 8 bits."""

import math
from typing import Self

from pydantic import Field, model_validator

from temper.spec import Spec


class Depth(Spec):
    """Which stored values are black and white, the same in every image of a set."""

    bits: int | None = Field(default=None, ge=8, le=16)
    """Values 0..2**bits - 1, in files of 16 bits."""
    window: tuple[float, float] | None = None
    """The values that become black and white, in place of ``bits``."""
    largest: int | None = None
    """The largest value of the set, from which ``bits`` follow; ``None``: they were given."""

    @property
    def limits(self) -> tuple[float, float]:
        """The values that become black and white."""
        if self.window is not None:
            return self.window
        return 0.0, 2.0 ** (self.bits or 16) - 1

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Self:
        if (self.bits is None) == (self.window is None):
            raise ValueError("expected either 'bits' or 'window'")
        low, high = self.limits
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"'window' is {low:g} {high:g}; expected two numbers, the lower one first")
        return self

    def __str__(self) -> str:
        low, high = self.limits
        how = f"{self.bits} bits, " if self.bits is not None else ""
        why = "" if self.largest is None else f"the largest value of the set is {self.largest}: "
        return f"{why}{how}values {low:g}..{high:g} become 0..255"
