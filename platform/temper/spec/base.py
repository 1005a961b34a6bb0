"""The base of all settings and records, and numbers that may be written as ratios."""

from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Spec(BaseModel):
    """Base of all settings and records: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __str__(self) -> str:
        return repr(self)


def parse_ratio(value: object) -> object:
    """Read '8/255' as a number; leave everything else to pydantic."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError(f"expected a number or a ratio such as 8/255, got {value!r}") from None
    return value


Ratio = Annotated[float, BeforeValidator(parse_ratio)]
"""A float that may be written as a ratio, such as ``8/255``."""


def format_ratio(value: float) -> str:
    """Write a pixel distance as people do: ``8/255``, or ``1/510``, where it is one, else a short decimal."""
    if float(f"{value:.4g}") != value:
        for denominator in (255, 510):
            numerator = value * denominator
            if abs(numerator - round(numerator)) < 1e-6:
                return f"{round(numerator)}/{denominator}"
    return f"{value:.4g}"
