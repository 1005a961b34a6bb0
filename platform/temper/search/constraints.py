"""Comparisons that every point must satisfy, such as ``objective.adversary.eps <= threat.eps``."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from temper.spec import format_ratio

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
FORM = re.compile(r"^\s*(?:(?P<factor>[\d./]+)\s*\*\s*)?(?P<path>[A-Za-z_][\w.]*)\s*$")
PATTERN = re.compile(r"^(?P<left>[^<>=!]+)(?P<sign><=|>=|==|!=|<|>)(?P<right>[^<>=!]+)$")


@dataclass(frozen=True)
class Side:
    """A number or word, or a factor times the value at a dotted recipe path."""

    value: Any
    path: str | None
    factor: float | None

    def of(self, recipe: Mapping[str, Any]) -> Any:
        """Its value in a resolved recipe; ``None`` where the path leads nowhere."""
        if self.path is None:
            return self.value
        node: Any = recipe
        for name in self.path.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        return node if self.factor is None or not _is_number(node) else self.factor * node


@dataclass(frozen=True)
class Constraint:
    """One comparison of two sides."""

    text: str
    left: Side
    sign: str
    right: Side

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``path <= 2 * path``, ``path != word`` or ``path > 8/255``.

        Raises:
            ValueError: ``text`` is no such comparison.
        """
        found = PATTERN.match(text)
        if found is None:
            raise ValueError(
                f"{text!r} is not a comparison; write two sides with one of {', '.join(COMPARISONS)} between "
                "them, such as objective.adversary.eps <= threat.eps"
            )
        return cls(text, _side(found["left"]), found["sign"], _side(found["right"]))

    def holds(self, recipe: Mapping[str, Any]) -> bool:
        """Whether a resolved recipe satisfies it; one without a side (no adversary, say) does."""
        left, right = self.left.of(recipe), self.right.of(recipe)
        if left is None or right is None:
            return True
        if self.sign not in ("==", "!=") and not (_is_number(left) and _is_number(right)):
            return True
        return COMPARISONS[self.sign](left, right)

    def explain(self, recipe: Mapping[str, Any]) -> str:
        """The comparison with its values."""
        shown = [
            format_ratio(value) if isinstance(value, float) else str(value)
            for value in (self.left.of(recipe), self.right.of(recipe))
        ]
        return f"{self.text.strip()} ({shown[0]} and {shown[1]})"


def _side(text: str) -> Side:
    text = text.strip()
    number = _number(text)
    if number is not None:
        return Side(number, None, None)
    found = FORM.match(text)
    if found is None:
        raise ValueError(
            f"{text!r} is neither a number nor a dotted path, with or without a factor before it"
        )
    factor = _number(found["factor"]) if found["factor"] else None
    if "." not in found["path"] and factor is None:
        return Side({"true": True, "false": False, "null": None}.get(text, text), None, None)
    return Side(None, found["path"], factor)


def _number(text: str) -> float | None:
    numerator, _, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if denominator else float(numerator)
    except (ValueError, ZeroDivisionError):
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
