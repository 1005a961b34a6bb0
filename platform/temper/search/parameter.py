"""The values of one dotted recipe path."""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from temper.spec import Ratio, Spec

DOMAINS = ("choice", "grid", "uniform", "loguniform", "integers")
MAX_LEVELS = 10_000


class Parameter(Spec):
    """Exactly one of ``choice``, ``grid``, ``uniform``, ``loguniform`` and ``integers``."""

    choice: list[Any] | None = Field(default=None, min_length=1)
    """Drawn with equal probability; enumerated by a grid search."""
    grid: list[Any] | None = Field(default=None, min_length=1)
    """Always enumerated: each sample is tried with all of them."""
    uniform: tuple[Ratio, Ratio] | None = None
    loguniform: tuple[Ratio, Ratio] | None = None
    integers: tuple[int, int] | None = None
    """Both ends included."""
    step: Ratio | None = Field(default=None, gt=0)
    """Quantises: values lie on the lower end plus multiples of this."""
    when: dict[str, Any] = Field(default_factory=dict)
    """The parameter exists only where others have these values (one, or a list to choose from)."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name in DOMAINS if getattr(self, name) is not None]
        if len(given) != 1:
            got = f"got {', '.join(given)}" if given else "got none"
            raise ValueError(f"give exactly one of {', '.join(DOMAINS)}, {got}")
        name, value = given[0], getattr(self, given[0])
        if name in ("choice", "grid"):
            if self.step is not None:
                raise ValueError(f"step quantises numbers, not a {name}")
            return self
        if value[0] >= value[1]:
            raise ValueError(
                f"{name} needs a lower and a higher end, got {value[0]:g} and {value[1]:g}"
                + (f"; write [{value[1]:g}, {value[0]:g}]" if value[0] > value[1] else "; write choice")
            )
        if name == "loguniform" and value[0] <= 0:
            raise ValueError(f"loguniform needs positive ends, got {value[0]:g}")
        if name == "loguniform" and self.step is not None:
            raise ValueError("step goes with uniform and integers; for loguniform list the values in choice")
        if self.step is not None and self.step > value[1] - value[0]:
            raise ValueError(f"step {self.step:g} is wider than {name} {value[0]:g} to {value[1]:g}")
        if name == "integers" and self.step is not None and self.step != int(self.step):
            raise ValueError(f"step of integers is a whole number, got {self.step:g}")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and higher end of a range; ``None`` for listed values."""
        return self.uniform or self.loguniform or self.integers

    @property
    def listed(self) -> list[Any] | None:
        """The values of ``choice`` or ``grid``."""
        return self.choice if self.choice is not None else self.grid

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        if self.loguniform is not None:
            low, high = map(math.log, self.loguniform)
            return float(math.exp(generator.uniform(low, high)))
        levels = self.levels()
        if levels is not None:
            return levels[int(generator.integers(len(levels)))]
        assert self.uniform is not None
        return float(generator.uniform(*self.uniform))

    def levels(self) -> list[Any] | None:
        """All values in order, where they can be counted."""
        if self.listed is not None:
            return self.listed
        if self.integers is not None:
            return list(range(self.integers[0], self.integers[1] + 1, int(self.step or 1)))
        if self.uniform is None or self.step is None:
            return None
        low, high = self.uniform
        count = min(MAX_LEVELS, int((high - low) / self.step + 1e-9) + 1)
        # What a person would have written: 0.15, not 0.15000000000000002.
        return [float(f"{low + index * self.step:.12g}") for index in range(count)]

    def applies(self, point: Mapping[str, Any]) -> bool:
        """Whether the parameter exists beside the values of ``point``."""
        return all(name in point and point[name] in _listed(wanted) for name, wanted in self.when.items())


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def in_order(parameters: Mapping[str, Parameter]) -> list[str]:
    """The names so that each stands after those that its ``when`` asks for.

    Raises:
        ValueError: a ``when`` names an unknown parameter, or two depend on each other.
    """
    for name, parameter in parameters.items():
        for other in parameter.when:
            if other not in parameters:
                raise ValueError(
                    f"parameters.{name}.when: no parameter '{other}'; there are {', '.join(parameters)}"
                )
    placed: list[str] = []
    while len(placed) < len(parameters):
        ready = [
            name
            for name, parameter in parameters.items()
            if name not in placed and all(other in placed for other in parameter.when)
        ]
        if not ready:
            waiting = ", ".join(name for name in parameters if name not in placed)
            raise ValueError(f"parameters: the 'when' of {waiting} depend on each other")
        placed += ready
    return placed
