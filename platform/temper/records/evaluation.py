"""``record.json``: everything that is claimed of one evaluated model, with what it rests on."""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from temper.errors import RecordError
from temper.records.accuracies import MetricsRecord, Proportion
from temper.records.advice import AdviceRecord
from temper.records.classification import BaselinesRecord, BinaryRecord, MistakeRecord, ValidationRecord
from temper.records.corruptions import CorruptionRecord
from temper.records.further_tests import FurtherTestRecord
from temper.records.rejection import RejectionRecord
from temper.records.slices import SliceRecord
from temper.records.suite import SuiteRecord
from temper.safe_load import read_json
from temper.spec import Spec, Threat, first_problem

SCHEMA_VERSION: Final = 1


class DataRecord(Spec):
    """The images that a model was evaluated on."""

    name: str
    fingerprint: str
    classes: list[str]
    split: str
    num_images: int
    image_size: int


class AttackRecord(Spec):
    """What one member of a suite did, in the order of the cascade."""

    name: str
    """The member's name, such as ``pgd-20``."""
    settings: dict[str, Any]
    num_attacked: int
    """Images that still stood when the member's turn came."""
    num_fooled: int
    robust_acc_after: float
    """Robust accuracy over all images after this member and those before it."""
    num_rejected: int = 0
    """Returned images that broke the threat model and were not counted."""
    seconds: float


class ThreatRecord(Spec):
    """Robust accuracy within a further threat model."""

    threat: Threat
    suite: str
    robust_acc: Proportion
    attacks: list[AttackRecord]


class CurvePoint(Spec):
    """Robust accuracy at one eps of the main norm."""

    eps: float
    robust_acc: Proportion


class MinimumNormRecord(Spec):
    """The smallest perturbations found that fool the model, of the images that it classifies correctly.

    Upper bounds in pixel units; ``None`` where fewer images than that share were fooled at all.
    """

    norm: str
    num_images: int
    num_found: int
    median: float | None
    lower_quartile: float | None
    upper_quartile: float | None


class GateRecord(Spec):
    """A check that the numbers can be trusted."""

    name: str
    passed: bool
    detail: str


class ModelRecord(Spec):
    backbone: str
    num_params: int
    num_trained_params: int
    adapter: str | None = None
    """Its label, such as ``adalora(8)``."""
    adapter_ranks: dict[str, int] = Field(default_factory=dict)
    """Adapted layer -> rank at the best epoch, of adapters that have ranks."""


class Cost(Spec):
    """What the model took; ``*_s`` in seconds, passes counted per image."""

    train_s: float
    evaluate_s: float
    gpu_s: float
    device: str
    num_train_forward: int
    num_train_backward: int
    num_evaluate_forward: int
    num_evaluate_backward: int


class Adaptability(Spec):
    """Target accuracy gained over the frozen start (a linear probe on the start model's features)."""

    frozen_start_balanced_acc: float
    balanced_acc: float
    gain: float


class Consistency(Spec):
    """Mean and spread (sample standard deviation) over ``num_folds`` stratified folds of the test images."""

    over: Literal["test folds"] = "test folds"
    num_folds: int
    clean_acc_mean: float
    clean_acc_std: float
    robust_acc_mean: float
    robust_acc_std: float


class Robustness(Spec):
    """Worst case over the suite, and what is left of the clean accuracy under it."""

    robust_acc: float
    retained: float
    """robust_acc / clean_acc."""


class Promises(Spec):
    """temper's promises, in numbers; ``None`` where the run could not show one."""

    adaptability: Adaptability | None
    consistency: Consistency | None
    robustness: Robustness


class FileRecord(Spec):
    """A file beside the record: its path relative to the record's folder."""

    path: str
    sha256: str


class EvaluationRecord(Spec):
    """One evaluated model. Written once, never changed."""

    schema_version: Literal[1] = 1
    name: str
    created: str
    """UTC, ISO 8601."""
    status: Literal["ok", "blocked"]
    seed: int
    recipe_hash: str
    recipe: dict[str, Any]
    data: DataRecord
    source: DataRecord | None
    threat: Threat
    suite: SuiteRecord
    clean_acc: Proportion
    robust_acc: Proportion
    balanced_acc: float
    robust_balanced_acc: float
    auroc: float | None
    """``None`` where a class has no image."""
    metrics: MetricsRecord | None = None
    """``None`` in older records."""
    validation: ValidationRecord | None = None
    """Absent from older records, as the next four are; ``None`` for arrays in memory."""
    baselines: BaselinesRecord | None = None
    confusion: dict[str, dict[str, int]] | None = None
    """Class -> {answer -> clean test images}; ``""`` is an answer that is none of the classes."""
    binary: BinaryRecord | None = None
    """Of two classes."""
    mistakes: list[MistakeRecord] = Field(default_factory=list)
    """The most confident wrong answers to clean test images, the surest first."""
    source_acc: Proportion | None
    source_retention: float | None
    """source_acc / the start model's source accuracy, where that is known."""
    per_class: dict[str, dict[str, float]]
    """Class -> {clean_acc, robust_acc}."""
    slices: list[SliceRecord] = Field(default_factory=list)
    """By value of each attribute that the shards have, such as site; empty in older records."""
    tests: list[FurtherTestRecord] = Field(default_factory=list)
    """Of ``data.tests``, in their order; empty in older records."""
    unsliced: list[str] | None = None
    """Attributes without slices: groups, and those of too many values. ``None`` in older records, and for
    arrays in memory."""
    attacks: list[AttackRecord]
    curve: list[CurvePoint] = Field(default_factory=list)
    """Robust accuracy over eps, where more than one was asked for."""
    others: list[ThreatRecord] = Field(default_factory=list)
    """Within other threat models."""
    union_acc: Proportion | None = None
    """Robust within all threat models at once, where there are several."""
    corruptions: list[CorruptionRecord] = Field(default_factory=list)
    minimum_norm: MinimumNormRecord | None = None
    rejection: RejectionRecord | None = None
    promises: Promises
    gates: list[GateRecord]
    advice: list[AdviceRecord] = Field(default_factory=list)
    """Of bad results: what is seen, and which option to change. Empty where nothing is bad, and in older
    records.
    """
    model: ModelRecord
    cost: Cost
    environment: dict[str, Any]
    """git_commit, packages, python, platform, num_threads."""
    files: dict[str, FileRecord]
    """checkpoint, recipe, outcomes, adversarial, chunks, figure, mistakes; ``outcomes of NAME`` for each of
    ``tests``; ``lineage`` where settings changed
    on the way (by population-based training), so that the recipe alone does not repeat the run.
    """


def read_record(path: Path) -> EvaluationRecord:
    """Read ``record.json``.

    Raises:
        RecordError: missing, not JSON, of another schema version, or not a record.
    """
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record; create one with `temper evaluate RUN`") from None
    except (OSError, ValueError) as problem:
        raise RecordError(f"{path}: not readable as JSON ({problem})") from None
    if isinstance(document, dict) and document.get("kind") == "external":
        raise RecordError(
            f"{path}: an external record, published elsewhere and not measured here; its evidence "
            "is missing, so it cannot be ranked, compared or verified; `temper leaderboard` shows it in grey"
        )
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise RecordError(f"{path}: schema version {version!r}, this temper reads {SCHEMA_VERSION}")
    try:
        return EvaluationRecord.model_validate(document)
    except ValidationError as problem:
        raise RecordError(f"{path}: {first_problem(problem)}") from None
