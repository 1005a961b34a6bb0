"""How figures and options are written in advice."""

from collections.abc import Sequence

MAX_NAMED = 3
"""Classes or gates that a sentence names."""


def percent(value: float) -> str:
    """``84.2 %`` of 0.842."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """``3.1 points`` of 0.031, whatever the sign."""
    return f"{abs(100 * value):.1f} points"


def p_value(p: float) -> str:
    """``p = 0.031``, or ``p < 0.0001``."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def better_than(value: float, bar: float) -> str:
    """What to say of a ``value`` whose interval reaches down to ``bar``."""
    return "no better than" if value <= bar else "not significantly better than"


def named(names: Sequence[str]) -> str:
    """``'a', 'b', 'c' and 4 more``."""
    shown = ", ".join(f"'{_short(name)}'" for name in names[:MAX_NAMED])
    return f"{shown} and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else shown


def assign(**settings: object) -> str:
    """``--set optim.lr=0.01`` of ``optim__lr=0.01``."""
    return " ".join(f"--set {name.replace('__', '.')}={value}" for name, value in settings.items())


def _short(name: str, length: int = 40) -> str:
    plain = " ".join(name.split())
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"
