"""Measuring a record's rejection again, with its model and its images."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from temper.errors import TemperError
from temper.records import Calibration, RejectionRecord
from temper.run.rejection import attacked_images, calibrate, measure_on
from temper.run.target import EvaluationTarget
from temper.verification import Check, Evidence, check_of, differences

TOLERANCE: Final = 0.005
"""Of shares, areas and, relative to their size, of thresholds: float arithmetic differs between machines."""


def check_rejection(evidence: Evidence, target: EvaluationTarget, logits: Tensor) -> Check | str:
    """The calibration and every figure but those under attack; or why that cannot be said.

    ``logits`` (N,C) are the model's answers to the test images.
    """
    claimed, saved = evidence.record.rejection, evidence.saved
    try:
        material = target.material()
        calibration = calibrate(target, material)
    except TemperError as problem:
        return f"rejection: {problem}"
    if claimed is None or material is None or calibration is None:
        present = ("the record has" if claimed else "has not", "its recipe asks" if material else "asks not")
        problems = [] if claimed is None and material is None else [" rejection, ".join(present) + " for it"]
        return check_of("rejection again", problems, "not asked for")
    attacked = attacked_images(saved.threat, torch.from_numpy(saved.images), saved.predictions)
    # Logits under attack are not kept; the clean ones take their place, and those figures are not compared.
    found = measure_on(target, attacked, logits, material, calibration)
    problems = [*_calibrations(claimed.calibration, calibration), *_figures(claimed, found, len(logits))]
    seen = f"temperature and thresholds from {calibration.num_images} images, and what they do"
    return check_of("rejection again", problems, seen)


def _calibrations(claimed: Calibration, found: Calibration) -> Iterator[str]:
    exact = ("checkpoint", "num_images", "coverage")
    for name, value in found.model_dump().items():
        if name == "schema_version":
            continue
        tolerance = 0.0 if name in exact else TOLERANCE * max(1.0, abs(value))
        yield from differences(f"rejection.calibration.{name}", getattr(claimed, name), value, tolerance)


def _figures(claimed: RejectionRecord, found: RejectionRecord, num_images: int) -> Iterator[str]:
    slack = _slack(num_images)
    for name in ("ece", "accepted", "accepted_acc", "auroc_errors", "aurc", "curve"):
        yield from differences(f"rejection.{name}", getattr(claimed, name), getattr(found, name), slack)
    if len(claimed.detections) != len(found.detections):
        yield f"rejection.detections are {len(claimed.detections)}, {len(found.detections)} were found"
        return
    for index, (one, other) in enumerate(zip(claimed.detections, found.detections, strict=True)):
        path, slack = f"rejection.detections.{index}", _slack(other.num_images)
        for name, tolerance in (
            ("kind", 0.0),
            ("name", 0.0),
            ("num_images", 0.0),
            ("auroc", TOLERANCE),
            ("flagged", slack),
        ):
            yield from differences(f"{path}.{name}", getattr(one, name), getattr(other, name), tolerance)


def _slack(num_images: int) -> float:
    """Two images may end on the other side of a threshold."""
    return max(TOLERANCE, 2 / num_images)
