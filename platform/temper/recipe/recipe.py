"""The whole recipe: its fields, its contradictions, and how it is read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from temper.data import DataSpec
from temper.evaluation import EvaluationSpec
from temper.models import ModelSpec
from temper.objective import Objective
from temper.optim import OptimSpec
from temper.recipe.parts import (
    CheckpointSpec,
    ComputeSpec,
    Metric,
    PretrainSpec,
    ValidationSpec,
    WorkersSpec,
)
from temper.records import hash_of_recipe
from temper.schedules import AnySchedule, Full
from temper.spec import BallThreat, Spec, apply_overrides, read_yaml, refuse_secrets, validate
from temper.tracking import TrackingSpec

PRETRAINED_OPTIM = {
    "kind": "adamw",
    "lr": "auto",
    "warmup_frac": 0.1,
    "max_grad_norm": 1.0,
    "ema_decay": "auto",
}
"""What a recipe that starts from pretrained weights leaves out (measured: docs/adaptation.md): a rate that
fits these images, reached slowly, and weights that are averaged."""
PRETRAINED_BATCH_NORM = "frozen"
"""Statistics of a few hundred images are worse than those of the weights: with them EfficientNet-Lite0
forgets in one epoch what the probe knew."""


class Recipe(Spec):
    """One experiment. Fields that are left out get defaults, which are written into the run folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    epochs: int = Field(ge=1, le=100_000)
    """Passes over the target images."""
    threat: BallThreat
    data: DataSpec
    model: ModelSpec
    pretrain: PretrainSpec | None = None
    objective: Objective = Objective()
    schedule: AnySchedule = Full()
    optim: OptimSpec = OptimSpec()
    validation: ValidationSpec = ValidationSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    tracking: TrackingSpec = TrackingSpec()
    workers: WorkersSpec = WorkersSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, document: Any) -> Any:
        return with_pretrained_defaults(document) if isinstance(document, Mapping) else document

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for problem in contradictions(self):
            raise ValueError(problem)
        return self

    @property
    def is_hardened(self) -> bool:
        """Whether the target is trained under attack."""
        adversary = self.objective.adversary
        return adversary is not None and adversary.eps > 0 and "target" in adversary.attacked_tasks

    @property
    def has_start(self) -> bool:
        """Whether the run starts from trained weights, not random ones."""
        return self.model.weights is not None or self.pretrain is not None

    @property
    def is_probe(self) -> bool:
        """Whether the run is a linear probe itself: only a head trains, without attacks."""
        adversary = self.objective.adversary
        return self.schedule.kind == "head_only" and (adversary is None or adversary.eps == 0)

    @property
    def starts_from_probe(self) -> bool:
        """Whether the target head starts as the linear probe."""
        if self.model.head is None:
            return self.model.weights is not None
        return self.model.head == "probe"

    @property
    def is_balanced(self) -> bool:
        """Whether every class counts the same, however many images it has."""
        objective, metric = self.objective, self.validation.metric
        is_asked_for = metric is not None and "balanced" in metric
        return is_asked_for or objective.class_weights == "balanced" or self.data.sampling == "balanced"

    @property
    def selection_metric(self) -> Metric:
        """The validation metric that chooses the best epoch."""
        if self.validation.metric is not None:
            return self.validation.metric
        return "val/target/robust_acc" if self.is_hardened else "val/target/clean_acc"

    def resolved(self) -> dict[str, Any]:
        """Every field with its value, as plain data."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """16 hex digits that identify this experiment."""
        return hash_of_recipe(self.resolved())


def contradictions(recipe: Recipe) -> Iterator[str]:
    """Fields of ``recipe`` that contradict each other: what is wrong, and what to do."""
    objective, data = recipe.objective, recipe.data
    if data.source is None and objective.uses_source:
        yield "objective.alpha > 0 needs data.source; set alpha: 0 or name the source shards"
    if data.source is None and recipe.pretrain is not None:
        yield "pretrain needs data.source, the task to pretrain on"
    if recipe.pretrain is not None and recipe.model.weights is not None:
        yield "pretrain and model.weights are two starts: keep one of them"
    yield from _contradictions_of_validation(recipe)
    if recipe.model.head == "probe" and not recipe.has_start:
        yield "model.head: probe needs a start that has learned something: model.weights or pretrain"
    if objective.term.needs_start and not recipe.has_start:
        yield f"objective.source_term: {objective.term.kind} needs a start: model.weights or pretrain"
    if objective.term.kind == "l2sp" and recipe.optim.weight_decay > 0:
        yield "objective.source_term: l2sp replaces weight decay; set optim.weight_decay: 0"
    adversary = objective.adversary
    if adversary is not None and "source" in adversary.attacked_tasks and not objective.uses_source:
        yield f"objective.adversary.tasks: {adversary.tasks} needs source_term replay and alpha > 0"
    if adversary is not None and adversary.needs_classes and data.mixing is not None:
        yield f"objective.adversary: {adversary.kind} needs one class per image; set data.mixing: null"
    if data.sampling == "balanced" and data.resident is False:
        yield "data.sampling: balanced needs data.resident: true; for streams use objective.class_weights"


def _contradictions_of_validation(recipe: Recipe) -> Iterator[str]:
    validation = recipe.validation
    if validation.steps == 0 and "robust" in recipe.selection_metric:
        yield f"validation.steps: 0 measures no {recipe.selection_metric}, which chooses the epoch"
    if validation.is_asynchronous and recipe.workers.max_workers == 0:
        yield (
            "validation.is_asynchronous: true needs Ray Train workers to run beside; "
            "set workers.num_workers to 1 or more, or leave it false"
        )
    if validation.is_asynchronous and validation.patience is not None:
        yield (
            "validation.patience needs results at once, is_asynchronous: true delivers them later; "
            "keep one of them"
        )


def with_pretrained_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document``, a recipe as plain data, with the defaults of a pretrained start if it has one.

    Fields that it sets are kept. The defaults belong together, so a recipe that sets a learning rate gets
    none of them; one that sets only an optimizer keeps that optimizer's other settings.
    """
    filled = dict(document)
    model, optim = filled.get("model"), filled.get("optim", {})
    if not isinstance(model, Mapping) or model.get("weights") is None or not isinstance(optim, Mapping):
        return filled
    if optim.get("lr", "auto") != "auto":
        return filled
    filled["optim"] = {**({"lr": "auto"} if "kind" in optim else PRETRAINED_OPTIM), **optim}
    schedule = filled.get("schedule", {"kind": "full"})
    if isinstance(schedule, Mapping) and schedule.get("kind") != "twins":
        filled["schedule"] = {"batch_norm": PRETRAINED_BATCH_NORM, **schedule}
    return filled


def build_recipe(
    document: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, where: str = "recipe"
) -> Recipe:
    """A recipe from plain data and dotted overrides, validated whole.

    Raises:
        RecipeError: one line for each problem, naming ``where`` and the dotted path.
    """
    whole = apply_overrides(document, overrides or {})
    refuse_secrets(whole, where)
    return validate(Recipe, whole, where)


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe's YAML and apply dotted overrides.

    Raises:
        RecipeError: no such file, not YAML, or one line for each field that is wrong.
    """
    return build_recipe(read_yaml(Path(path)), overrides, str(path))
