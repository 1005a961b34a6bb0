"""``crossval.json``: how much a recipe's numbers depend on the fold, the seed and the target."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from temper.records.accuracies import Interval
from temper.records.documents import read_document
from temper.records.evaluation import FileRecord
from temper.spec import Spec, Threat

MEASURES = ("clean_acc", "robust_acc", "balanced_acc", "robust_balanced_acc")
"""What of a run's record is summarised, as fractions 0..1."""


class FoldRun(Spec):
    """One run: a recipe on one fold of one target with one seed, and what its record says."""

    target: str
    fold: int
    """From 0."""
    site: str | None = None
    """That it tests, where each fold is a site."""
    seed: int
    status: Literal["ok", "blocked", "failed"]
    """``blocked``: trained, but a gate does not trust its numbers; ``failed``: there is no record."""
    clean_acc: float | None = None
    robust_acc: float | None = None
    balanced_acc: float | None = None
    robust_balanced_acc: float | None = None
    num_images: int | None = None
    """Test images that were attacked."""
    fingerprint: str | None = None
    """Of this fold of the images."""
    record: FileRecord | None = None
    error: str | None = None


class Spread(Spec):
    """A measure over the folds and seeds of one target."""

    mean: float
    """Over folds, of each fold's mean over its seeds."""
    std_folds: float | None
    """Sample standard deviation over folds of the means over seeds; ``None`` for a single fold."""
    std_seeds: float | None
    """Sample standard deviation over seeds of the means over folds; ``None`` for a single seed."""
    interval: Interval | None
    """Of the mean, within 0..1; ``None`` for a single fold."""


class TargetSummary(Spec):
    """One target: its images and what its runs have in common. Only runs with the status ``ok`` count."""

    target: str
    path: str
    fingerprint: str
    """Of the shards, before they were dealt into folds."""
    num_images: int
    """In all folds together."""
    num_copies: int
    """Images whose very bytes came before; they are in the fold of the first."""
    test_to_train: float
    """Images of the test split for each training image, over all folds, before any few-shot draw."""
    num_ok: int
    num_blocked: int
    num_failed: int
    measures: dict[str, Spread]
    """Measure -> its spread; empty where no run is ``ok``."""


class OverTargets(Spec):
    """A measure over several targets, each counting once with its mean."""

    mean: float
    std: float | None
    """Sample standard deviation; ``None`` for a single target."""
    num_targets: int


class CrossvalRecord(Spec):
    """A finished cross-validation. Written once, never changed."""

    schema_version: Literal[1] = 1
    name: str
    created: str
    """UTC, ISO 8601."""
    recipe_hash: str
    """Of the recipe without a fold."""
    recipe: dict[str, Any]
    threat: Threat
    folds: int
    """Of the target that has the most."""
    fold_seed: int
    keep_test: bool
    """Whether the official test images were left out of all folds."""
    by_site: bool = False
    """Whether each fold is a site."""
    seeds: list[int]
    targets: list[TargetSummary]
    runs: list[FoldRun]
    over_targets: dict[str, OverTargets] = Field(default_factory=dict)
    """Measure -> its mean over targets; empty for a single target, or where one has no run that counts."""
    seconds: float
    """Of the last call; runs that were there already cost nothing."""
    environment: dict[str, Any]


def read_crossval(path: Path) -> CrossvalRecord:
    """Read ``crossval.json``.

    Raises:
        RecordError: missing, or not such a record.
    """
    return read_document(CrossvalRecord, path, "no such record; create one with `temper crossval RECIPE`")
