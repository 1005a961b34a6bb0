"""What is known of a model when advice is asked for. Accuracies are fractions 0..1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from temper.records import CurvePoint, EvaluationRecord, Proportion, ValidationRecord
from temper.spec import Threat


@dataclass(frozen=True, eq=False)
class Answers:
    """What happened to each of N test images."""

    rows: np.ndarray
    """(N,) int64: their numbers in the shards."""
    labels: np.ndarray
    """(N,) int64."""
    correct: np.ndarray
    """(N,) bool: right on the clean image."""
    robust: np.ndarray
    """(N,) bool: right under every attack."""


@dataclass(frozen=True, eq=False)
class Course:
    """How the training went, and what it was given."""

    losses: Sequence[float] = ()
    """Mean training loss of the target, epoch by epoch, to the last one."""
    first_epoch: int = 0
    """The epoch of the first of them: those before are not known, or were not trained by steps."""
    best_epoch: int | None = None
    """The epoch that was kept, from 0; ``None`` where it is not known, or was none of them."""
    stopped: str | None = None
    """Why the run ended before its last epoch."""
    val_acc: float | None = None
    """Clean accuracy of the kept epoch on ``num_val`` validation images."""
    num_val: int = 0
    probe_val_acc: float | None = None
    """Of the linear probe on the frozen start, on the same images."""
    num_train: Mapping[str, int] = field(default_factory=dict)
    """Class -> training images."""

    @property
    def num_epochs(self) -> int:
        """How many were trained."""
        return self.first_epoch + len(self.losses)


@dataclass(frozen=True, eq=False)
class Facts:
    """A model's figures; whatever is not known is left out, and so is the advice that would rest on it."""

    classes: Sequence[str] = ()
    threat: Threat | None = None
    clean: Proportion | None = None
    robust: Proportion | None = None
    balanced_acc: float | None = None
    robust_balanced_acc: float | None = None
    answers: Answers | None = None
    probe_balanced_acc: float | None = None
    """Of the linear probe on the frozen start, on the test images."""
    probe_correct: np.ndarray | None = None
    """(N,) bool: was the probe right on the images of ``answers``?"""
    curve: Sequence[CurvePoint] = ()
    failed_gates: Sequence[str] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Resolved, as plain data; of a model from elsewhere, the settings of its evaluation."""
    course: Course = Course()
    validation: ValidationRecord | None = None
    has_auto_lr: bool = False
    """Whether recipes may say ``optim.lr: auto``."""
    plain: "Facts | None" = None
    """Of the same model, not hardened, on the same test images."""

    @classmethod
    def of(cls, record: EvaluationRecord, answers: Answers | None = None) -> "Facts":
        """What a record alone tells, and the outcomes that belong to it."""
        adaptability = record.promises.adaptability
        return cls(
            classes=record.data.classes,
            threat=record.threat,
            clean=record.clean_acc,
            robust=record.robust_acc,
            balanced_acc=record.balanced_acc,
            robust_balanced_acc=record.robust_balanced_acc,
            answers=answers,
            probe_balanced_acc=adaptability.frozen_start_balanced_acc if adaptability else None,
            curve=record.curve,
            failed_gates=[gate.name for gate in record.gates if not gate.passed],
            recipe=record.recipe,
            validation=record.validation,
        )

    def setting(self, path: str) -> Any:
        """The value of a dotted path of the recipe; ``None`` where there is none."""
        value: Any = self.recipe
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    @property
    def is_ours(self) -> bool:
        """Whether temper trained it."""
        return "objective" in self.recipe

    @property
    def is_hardened(self) -> bool:
        """Whether its target was trained under attack."""
        adversary = "objective.adversary"
        tasks = self.setting(f"{adversary}.tasks") or "target"
        return bool(self.setting(f"{adversary}.eps")) and tasks in ("target", "both")

    @property
    def is_blocked(self) -> bool:
        return bool(self.failed_gates)

    @cached_property
    def largest(self) -> tuple[int, float] | None:
        """The class with the most test images, and its share of them."""
        if self.answers is None:
            return None
        counts = np.bincount(self.answers.labels, minlength=len(self.classes))
        label = int(counts.argmax())
        return label, float(counts[label] / len(self.answers.labels))

    @property
    def chance(self) -> float | None:
        """Balanced accuracy of any constant answer."""
        return None if self.answers is None else 1 / len(np.unique(self.answers.labels))


def same_images(one: Answers | None, other: Answers | None) -> tuple[Answers, Answers] | None:
    """Both, where they are of the same images in the same order."""
    if one is None or other is None or not np.array_equal(one.rows, other.rows):
        return None
    return (one, other) if np.array_equal(one.labels, other.labels) else None
