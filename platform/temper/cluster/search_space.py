"""A search space: what a sweep varies, as dotted recipe paths."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from temper.errors import RecipeError, SearchSpaceError
from temper.recipe import Metric, Recipe, build_recipe
from temper.seeds import derive_seed
from temper.spec import Ratio, Spec, read_yaml, validate


class Parameter(Spec):
    """The values of one dotted path: exactly one of these."""

    choice: list[Any] | None = Field(default=None, min_length=1)
    """Drawn with equal chances, or walked through by a grid."""
    uniform: tuple[Ratio, Ratio] | None = None
    loguniform: tuple[Ratio, Ratio] | None = None
    integers: tuple[int, int] | None = None
    """Both ends included."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(type(self).model_fields)}, got {', '.join(given)}"
            )
        name, value = next(iter(given.items()))
        if name != "choice" and value[0] >= value[1]:
            raise ValueError(f"{name} needs a lower and a higher end, got {value[0]:g} and {value[1]:g}")
        if name == "loguniform" and value[0] <= 0:
            raise ValueError(f"loguniform needs positive ends, got {value[0]:g}")
        return self

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        if self.choice is not None:
            return self.choice[int(generator.integers(len(self.choice)))]
        if self.uniform is not None:
            return float(generator.uniform(*self.uniform))
        if self.loguniform is not None:
            low, high = map(math.log, self.loguniform)
            return float(math.exp(generator.uniform(low, high)))
        assert self.integers is not None
        return int(generator.integers(self.integers[0], self.integers[1] + 1))


class Scheduler(Spec):
    """Asynchronous successive halving. Li et al. 2020, arXiv:1810.05934."""

    kind: Literal["asha"] = "asha"
    grace_epochs: int = Field(default=1, ge=1)
    reduction_factor: float = Field(default=3, gt=1)


class SearchSpace(Spec):
    """What a sweep varies, how it draws, when it stops a trial, and who is evaluated in the end."""

    search: Literal["random", "grid"] = "random"
    samples: int = Field(default=12, ge=1, le=100_000)
    """Trials of a random search; a grid has as many as it has points."""
    seed: int = Field(default=0, ge=0)
    metric: Metric = "val/target/robust_acc"
    """Maximised. Only validation metrics can be named: choosing by test data would spoil them."""
    scheduler: Scheduler | None = Scheduler()
    finalists: int = Field(default=3, ge=1)
    """The best finished trials, which get the full evaluation."""
    baseline: dict[str, Any] | None = None
    """Overrides of one more run that is always trained and evaluated, for comparison."""
    parameters: dict[str, Parameter] = Field(min_length=1)


def load_space(path: Path, overrides: Mapping[str, Any] | None = None) -> SearchSpace:
    """Read a search space; ``overrides`` replaces top-level fields.

    Raises:
        SearchSpaceError: no such file, not YAML, or one line for each field that is wrong.
    """
    document = read_yaml(path, SearchSpaceError) | dict(overrides or {})
    try:
        return validate(SearchSpace, document, str(path))
    except RecipeError as problem:
        raise SearchSpaceError(str(problem)) from None


def draw_points(space: SearchSpace) -> list[dict[str, Any]]:
    """The overrides of each trial, in order: the same space gives the same points."""
    if space.search == "grid":
        for name, parameter in space.parameters.items():
            if parameter.choice is None:
                raise SearchSpaceError(
                    f"parameters.{name}: a grid needs 'choice'; random search takes the rest"
                )
        values = [parameter.choice or [] for parameter in space.parameters.values()]
        return [dict(zip(space.parameters, point, strict=True)) for point in itertools.product(*values)]
    return [
        {
            name: parameter.draw(np.random.default_rng(derive_seed(space.seed, "point", index, name)))
            for name, parameter in space.parameters.items()
        }
        for index in range(space.samples)
    ]


def build_trials(
    space: SearchSpace, document: Mapping[str, Any], where: str
) -> list[tuple[str, dict[str, Any], Recipe]]:
    """(trial id, overrides, recipe) of every point, each validated: before anything is started.

    Raises:
        SearchSpaceError: a point that is no recipe; the message names ``where`` and the dotted path.
    """
    trials = []
    for index, overrides in enumerate(draw_points(space)):
        try:
            recipe = build_recipe(document, overrides, f"{where}: trial {index}")
        except RecipeError as problem:
            raise SearchSpaceError(str(problem)) from None
        trials.append((f"{index:03d}", overrides, recipe))
    return trials
