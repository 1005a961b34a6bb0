"""How a finished run is evaluated."""

from pathlib import Path
from typing import Any, Self, get_args

from pydantic import Field, field_validator, model_validator

from temper.errors import RecipeError
from temper.evaluation.corruptions import Group
from temper.evaluation.plan import CascadePlan, EvaluationPlan
from temper.evaluation.rejection import RejectionSpec
from temper.evaluation.suite import suite_for
from temper.evaluation.suites import SuiteName
from temper.spec import Norm, Ratio, Spec, Threat, check_eps
from temper.storage import Place


class EvaluationSpec(Spec):
    """How a finished run is evaluated, on the test split, within the recipe's threat model."""

    suite: SuiteName | str = "quick"
    """``quick``, ``standard``, ``full``, or the path of a YAML file with another suite."""
    batch_size: int = Field(default=128, ge=1)
    chunk_size: int = Field(default=256, ge=1)
    """Images that one worker attacks together; finished chunks survive an interruption."""
    max_images: int | None = Field(default=None, ge=1)
    """A fixed stratified subset of the test split; ``null``: all of it."""
    curve: tuple[Ratio, ...] = ()
    """Further eps of the recipe's norm: robust accuracy over eps."""
    others: tuple[Threat, ...] = ()
    """Further threat models; robust accuracy within all of them at once is also reported."""
    corruptions: tuple[Group, ...] = ()
    """``common``: 15 kinds (arXiv:1903.12261); ``medical``: those of medical imaging; ``xray``,
    ``lighting``, ``weather``: what happens to X-rays, to parts under a lamp, and out of doors."""
    minimum_norms: bool = False
    """Search for the smallest perturbation that fools the model, image by image."""
    siblings: tuple[Place, ...] = ()
    """Folders of runs for the same classes, such as other seeds: their adversarial examples are tried too."""
    allow_leakage: bool = False
    """Do not block if test images are also in training or validation; the record says how many."""
    rejection: RejectionSpec | None = None
    """Calibrate the confidence on validation images, and measure rejection. ``true``: with its defaults.
    """
    num_workers: int = Field(default=0, ge=0, le=4096)
    """Ray processes that share the images; 0: the calling process evaluates all."""

    @field_validator("suite")
    @classmethod
    def _file_has_one_place(cls, suite: str) -> str:
        """Absolute, because workers may have another working directory."""
        return str(Path(suite).resolve()) if Path(suite).is_file() else suite

    @field_validator("rejection", mode="before")
    @classmethod
    def _may_be_a_switch(cls, rejection: Any) -> Any:
        if isinstance(rejection, bool):
            return {} if rejection else None
        return rejection

    @model_validator(mode="after")
    def _threats_differ(self) -> Self:
        named = [other.label for other in self.others]
        if len({(other.norm, other.eps) for other in self.others}) < len(named):
            raise ValueError(f"others: a threat model is given twice ({', '.join(named)})")
        return self

    def plan(self, threat: Threat, seed: int) -> EvaluationPlan:
        """What is to be measured within ``threat``.

        Raises:
            RecipeError: a suite that is not there, or does not fit; other channels in ``others``.
        """
        for eps in self.curve:
            check_eps(threat.norm, eps)
        if self.minimum_norms and threat.norm not in get_args(Norm):
            raise RecipeError(f"evaluation.minimum_norms: not defined for {threat.norm}; set false")
        main = CascadePlan(threat=_plain(threat), suite=suite_for(self.suite, threat.norm))
        others = [
            CascadePlan(threat=_like(other, threat), suite=suite_for(self._suite_of_others(), other.norm))
            for other in self.others
        ]
        return EvaluationPlan(
            main=main,
            curve=tuple(self.curve),
            others=tuple(one for one in others if one.threat != main.threat),
            corruptions=self.corruptions,
            minimum_norms=self.minimum_norms,
            seed=seed,
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
        )

    def _suite_of_others(self) -> str:
        """An own suite is one for the recipe's norm."""
        return "standard" if self.suite.endswith((".yaml", ".yml")) else self.suite


def _plain(threat: Threat) -> Threat:
    return Threat(norm=threat.norm, eps=threat.eps, channels=threat.channels)


def _like(other: Threat, main: Threat) -> Threat:
    """``other`` with the channels of the ``main`` threat model.

    Raises:
        RecipeError: it names others.
    """
    if "channels" in other.model_fields_set and other.channels != main.channels:
        raise RecipeError(
            f"evaluation.others: {other.label} has channels {other.channels}, but threat.channels is "
            f"{main.channels}, which holds for all threat models of an evaluation; leave it out"
        )
    return Threat(norm=other.norm, eps=other.eps, channels=main.channels)
