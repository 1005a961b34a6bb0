"""A search space: one YAML file that says what a sweep varies, as dotted recipe paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from temper.errors import RecipeError, SearchSpaceError
from temper.search.constraints import Constraint
from temper.search.parameter import Parameter, in_order
from temper.spec import Spec, read_yaml, refuse_secrets, validate

Measured = Literal[
    "val/target/clean_acc",
    "val/target/balanced_acc",
    "val/target/robust_acc",
    "val/target/robust_balanced_acc",
    "val/source/clean_acc",
]


def _refuse_unmeasured(value: object) -> object:
    """Say of a metric that no trial measures why it is none."""
    allowed = get_args(Measured)
    if not isinstance(value, str) or value in allowed:
        return value
    why = "trials do not measure it"
    if value.startswith("test/"):
        why = "a search that sees test images spoils them for the evaluation"
    raise ValueError(f"{why}; choose one of {', '.join(allowed)}, got {value!r}")


Objective = Annotated[Measured, BeforeValidator(_refuse_unmeasured)]
"""Only what is measured on validation images: choosing by test data would spoil them."""

EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""Numbers that YAML 1.1 reads as text, such as 1e-4."""


def _read_numbers(value: Any) -> Any:
    """``value`` with ``1e-4`` as a number wherever it stands."""
    if isinstance(value, dict):
        return {name: _read_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_read_numbers(one) for one in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


class Asha(Spec):
    """Asynchronous successive halving. Li et al. 2020, arXiv:1810.05934.

    With several ``brackets``, which grant trials more and more epochs before they are compared, it is the
    asynchronous Hyperband; together with ``search: tpe``, whose model also learns from stopped trials, it is
    the idea of BOHB (Falkner et al. 2018, arXiv:1807.01774).
    """

    kind: Literal["asha"] = "asha"
    grace_epochs: int = Field(default=1, ge=1)
    reduction_factor: float = Field(default=3, gt=1)
    brackets: int = Field(default=1, ge=1, le=8)


class MedianStopping(Spec):
    """Stops a trial that is below the median of the others' running means. Golovin et al. 2017 (Vizier)."""

    kind: Literal["median"] = "median"
    grace_epochs: int = Field(default=1, ge=1)
    min_trials: int = Field(default=3, ge=1)
    """Trials to compare with, at least."""


class PopulationTraining(Spec):
    """Population-based training. Jaderberg et al. 2017, arXiv:1711.09846.

    Every so many epochs a trial of the lowest ``quantile`` takes over the weights of one of the highest, and
    continues with its settings, changed a little. No trial is stopped, and none can be repeated from a single
    recipe: the changes are in its ``lineage.jsonl``.
    """

    kind: Literal["pbt"] = "pbt"
    every_epochs: int = Field(default=2, ge=1)
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    resample_prob: float = Field(default=0.25, ge=0, le=1)
    """Chance of a fresh draw instead of a factor of 0.8 or 1.2."""


AnyScheduler = Annotated[Asha | MedianStopping | PopulationTraining, Field(discriminator="kind")]

MUTABLE = ("objective.alpha", "objective.adversary.eps")
"""What a run can change on its way."""


class SearchSpace(Spec):
    """What a sweep varies, how it searches, when it stops a trial, and which trials are evaluated."""

    search: Literal["random", "grid", "tpe", "nsga2"] = "random"
    """``tpe``: tree-structured Parzen estimator (Bergstra et al. 2011); ``nsga2``: evolution towards the
    front of several objectives (Deb et al. 2002). Both by Optuna.
    """
    samples: int = Field(default=12, ge=1, le=100_000)
    """Number of trials; a grid has one for each point, and ``grid`` parameters multiply them."""
    seed: int = Field(default=0, ge=0)
    metric: Objective = "val/target/robust_acc"
    """Maximised; trials are compared by it while they run."""
    objectives: list[Objective] = Field(default_factory=list, max_length=4)
    """Maximised together, ``metric`` first: their front is searched and evaluated. Empty: ``metric``."""
    scheduler: AnyScheduler | None = Asha()
    finalists: int = Field(default=3, ge=1)
    """Finished trials that get the full evaluation: those of the front, then the best by ``metric``."""
    max_minutes: float | None = Field(default=None, gt=0)
    """No trial continues after this; what is finished is evaluated, the rest can be resumed."""
    baseline: dict[str, Any] | None = None
    """Overrides of one more run that is always trained and evaluated, for comparison."""
    constraints: list[str] = Field(default_factory=list)
    """Comparisons of recipe paths and numbers; points that violate one are not tried."""
    parameters: dict[str, Parameter] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _reads_numbers(cls, document: Any) -> Any:
        return _read_numbers(document)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        in_order(self.parameters)
        for text in self.constraints:
            Constraint.parse(text)
        if self.objectives and self.objectives[0] != self.metric:
            raise ValueError(f"objectives: the first is the metric, {self.metric}, got {self.objectives[0]}")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: list each only once")
        if self.search == "nsga2" and len(self.objectives) < 2:
            raise ValueError("search: nsga2 needs two objectives or more; list them, or use tpe")
        self._check_grids()
        self._check_population()
        return self

    def document(self) -> dict[str, Any]:
        """The space as plain data, which gives the same one again: no scheduler is said, not left out."""
        return {"scheduler": None, **self.model_dump(mode="json", exclude_none=True)}

    def _check_grids(self) -> None:
        for name, parameter in self.parameters.items():
            if self.search == "grid" and parameter.levels() is None:
                raise ValueError(
                    f"parameters.{name}: a grid needs values that can be counted: 'choice', 'integers', or "
                    "'uniform' with a 'step'; random search takes any range"
                )
            if self.search in ("tpe", "nsga2") and parameter.grid is not None:
                raise ValueError(f"parameters.{name}: {self.search} chooses values itself; write choice")

    def _check_population(self) -> None:
        if not isinstance(self.scheduler, PopulationTraining):
            return
        if self.search != "random":
            raise ValueError(
                f"scheduler: pbt begins with random points; search: {self.search} cannot be used"
            )
        mutable = [name for name in self.parameters if name in MUTABLE]
        if not mutable:
            raise ValueError(f"scheduler: pbt changes {' and '.join(MUTABLE)}; none is among the parameters")
        for name in mutable:
            if self.parameters[name].bounds is None:
                raise ValueError(f"parameters.{name}: pbt needs a range, uniform or loguniform")
        if self.samples < 4:
            raise ValueError(f"samples: pbt needs a population of 4 or more, got {self.samples}")

    @property
    def all_objectives(self) -> list[str]:
        """``objectives``, or ``metric`` alone."""
        return [*self.objectives] or [self.metric]

    @property
    def rules(self) -> list[Constraint]:
        """The constraints, parsed."""
        return [Constraint.parse(text) for text in self.constraints]


def load_space(path: Path, overrides: Mapping[str, Any] | None = None) -> SearchSpace:
    """Read a search space; ``overrides`` replaces top-level fields.

    Raises:
        SearchSpaceError: no such file, not YAML, or one line for each field that is wrong.
    """
    document = read_yaml(path, SearchSpaceError) | dict(overrides or {})
    refuse_secrets(document, str(path), SearchSpaceError)
    try:
        space = validate(SearchSpace, document, str(path))
    except RecipeError as problem:
        raise SearchSpaceError(str(problem)) from None
    refuse_samples_of_a_grid(space, overrides or {}, str(path))
    return space


def refuse_samples_of_a_grid(space: SearchSpace, changes: Mapping[str, Any], where: str) -> None:
    """A number of trials that was asked for has no effect on a grid.

    Raises:
        SearchSpaceError: one was.
    """
    if space.search == "grid" and changes.get("samples") is not None:
        raise SearchSpaceError(
            f"{where} is a grid, which tries each of its points once; omit samples, or set "
            "`search: random` there"
        )
