"""When a model's answer should not be trusted: what was fitted for it, and how well it was seen to work."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from temper.errors import RecordError
from temper.safe_load import read_json
from temper.spec import Spec, first_problem

Fraction = Annotated[float, Field(ge=0, le=1)]


class Calibration(Spec):
    """``calibration.json``: a temperature and three thresholds, fitted on validation images.

    Each threshold lets the share ``coverage`` of the validation images pass; nothing else than such images is
    needed to choose it.
    """

    schema_version: Literal[1] = 1
    checkpoint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the weights that it was fitted for."""
    num_images: int = Field(ge=1)
    """Validation images."""
    temperature: float = Field(gt=0)
    """Logits are divided by it before the softmax (Guo et al. 2017, arXiv:1706.04599)."""
    coverage: float = Field(gt=0, le=1)
    min_confidence: Fraction
    """Below this calibrated probability an answer is rejected."""
    max_energy: float
    """Above it an image counts as out of distribution (Liu et al. 2020, arXiv:2010.03759)."""
    max_squeezing: float = Field(ge=0, le=2)
    """Above it an image counts as tampered with (feature squeezing, Xu et al. 2018, arXiv:1704.01155)."""


class CoveragePoint(Spec):
    """The ``coverage`` most confident share of the images, and the share of them that is wrong."""

    coverage: Fraction
    risk: Fraction


class Detection(Spec):
    """How well scores tell other images from clean test images; higher scores should mean others."""

    kind: Literal["out of distribution", "adversarial"]
    name: str
    """Of the images: a set's name, or the threat model of attacked ones."""
    num_images: int = Field(ge=1)
    auroc: dict[str, Fraction]
    """Score (``confidence``, ``energy``, ``squeezing``) -> area under the ROC curve; 0.5 is chance."""
    flagged: dict[str, Fraction]
    """Score -> share of these images beyond the threshold of the calibration."""


class UnderAttack(Spec):
    """Answers to the images of the evaluation as its attacks left them.

    The attacks wanted a wrong class, not a confident one: whoever aims at the confidence does better.
    """

    accepted: Fraction
    """Share of the images whose answer is not rejected."""
    accepted_and_wrong: Fraction
    """Share of all images that are answered wrongly and not rejected."""


class RejectionRecord(Spec):
    """What rejecting, with a calibration from validation images, does on the test images."""

    calibration: Calibration
    ece: float
    """Expected calibration error of the clean answers at that temperature."""
    accepted: Fraction
    """Share of the clean images whose answer is not rejected."""
    accepted_acc: Fraction | None
    """Accuracy on these; ``None`` where there are none."""
    auroc_errors: float | None
    """How well the confidence tells right answers from wrong ones; ``None`` where all are of one kind."""
    aurc: Fraction
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017, arXiv:1705.08500); 0 is best."""
    curve: list[CoveragePoint]
    under_attack: UnderAttack
    detections: list[Detection]

    def auroc_of(self, kind: str, score: str) -> float | None:
        """The mean over the sets of one kind; ``None`` where none was measured."""
        found = [one.auroc[score] for one in self.detections if one.kind == kind and score in one.auroc]
        return sum(found) / len(found) if found else None


def read_calibration(path: Path) -> Calibration | None:
    """Read ``calibration.json``; ``None`` where there is none.

    Raises:
        RecordError: it is damaged, or of another version.
    """
    try:
        return Calibration.model_validate(read_json(path))
    except FileNotFoundError:
        return None
    except ValidationError as problem:
        raise RecordError(f"{path}: {first_problem(problem)}") from None
    except (OSError, ValueError) as problem:
        raise RecordError(f"{path}: not readable as JSON ({problem})") from None
