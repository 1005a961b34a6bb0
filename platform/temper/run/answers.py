"""What an evaluation's clean answers say: validation, baselines, confusion, two classes, mistakes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from temper.batches import as_floats
from temper.data import Images, load_images, paths_of
from temper.evaluation import Evaluation
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import answer_clean
from temper.evaluation.counted_model import held_still
from temper.evaluation.metrics import balanced
from temper.records import BinaryRecord, MistakeRecord, Proportion, ValidationRecord
from temper.run.target import EvaluationTarget
from temper.run.test_sets import chosen_from
from temper.statistics import (
    baselines,
    choose_threshold,
    confusion,
    most_confident,
    operating_point,
    positive_scores,
    roc_curve,
    validation_beside,
    wilson,
)


@dataclass(frozen=True)
class ValidationAnswers:
    """What the model says of N validation images."""

    validation: ValidationRecord
    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray

    def threshold(self, num_classes: int) -> float | None:
        """Of two classes, the one that tells them apart best here; else ``None``."""
        if num_classes != 2:
            return None
        return choose_threshold(positive_scores(self.predictions, self.confidences), self.labels)


def ask_validation(target: EvaluationTarget, test: Proportion) -> ValidationAnswers | None:
    """Ask the model about validation images; ``test`` is its accuracy on the test images.

    At most ``evaluation.max_images`` of them. ``None`` where there are none but those of the evaluation.
    """
    images = _validation_images(target)
    if images is None or not len(images.labels):
        return None
    data = LabelledImages(
        torch.from_numpy(np.ascontiguousarray(images.images)), torch.from_numpy(images.labels)
    )
    few = as_floats(data.images[:8], target.device)
    with held_still(target.model, few) as held:
        clean = answer_clean(held.model, data, target.settings.batch_size, target.device)
    acc = wilson(int(clean.correct.sum()), len(images.labels))
    balanced_acc = balanced(clean.correct, clean.labels, clean.logits.shape[1])
    return ValidationAnswers(
        validation=validation_beside(acc, balanced_acc, test),
        labels=images.labels,
        predictions=clean.prediction.numpy(),
        confidences=clean.confidence.numpy(),
    )


def _validation_images(target: EvaluationTarget) -> Images | None:
    data, shards = target.claim.data, target.shards.get("target")
    if shards is None or data.split == "val":
        return None
    val = load_images(shards, "val", target.view)
    return chosen_from(val, target.settings.max_images, target.claim.seed)


def with_paths(evaluation: Evaluation, target: EvaluationTarget) -> Evaluation:
    """The outcomes with the file of each image, where the shards tell."""
    import pyarrow as pa

    shards = target.shards.get("target")
    paths = None if shards is None else paths_of(shards, target.test.rows)
    if paths is None:
        return evaluation
    outcomes = evaluation.outcomes.append_column("path", pa.array(paths, pa.string()))
    return evaluation.with_outcomes(outcomes)


def describe_answers(
    evaluation: Evaluation, classes: list[str], validation: ValidationAnswers | None
) -> dict[str, Any]:
    """The fields of a record that follow from clean answers."""
    outcomes = evaluation.outcomes
    labels, predictions = (np.array(outcomes[name].to_pylist(), np.int64) for name in ("label", "prediction"))
    confidences = np.array(outcomes["confidence"].to_pylist(), np.float64)
    threshold = None if validation is None else validation.threshold(len(classes))
    is_binary = len(classes) == 2 == evaluation.worst_logits.shape[1]
    scores = positive_scores(predictions, confidences)
    return {
        "validation": None if validation is None else validation.validation,
        "baselines": baselines(labels, classes),
        "confusion": confusion(labels, predictions, classes),
        "binary": describe_binary(classes[1], scores, labels, threshold) if is_binary else None,
        "mistakes": _mistakes(evaluation, classes),
    }


def describe_binary(
    positive: str, scores: np.ndarray, labels: np.ndarray, threshold: float | None
) -> BinaryRecord | None:
    """Of the ``scores`` (N,) of the ``positive`` class; ``None`` where a class has no image."""
    at_half = operating_point(0.5, scores, labels)
    if at_half is None:
        return None
    chosen = None if threshold is None else operating_point(threshold, scores, labels)
    return BinaryRecord(positive=positive, at_half=at_half, chosen=chosen, roc=roc_curve(scores, labels))


def mistaken_places(evaluation: Evaluation) -> np.ndarray:
    """Places in the outcomes of the most confident mistakes, the surest first."""
    wrong = ~np.array(evaluation.outcomes["correct"].to_pylist(), bool)
    confidences = np.array(evaluation.outcomes["confidence"].to_pylist(), np.float64)
    return most_confident(wrong & (confidences > 0), confidences)


def _mistakes(evaluation: Evaluation, classes: list[str]) -> list[MistakeRecord]:
    rows = evaluation.outcomes.take(mistaken_places(evaluation)).to_pylist()
    return [
        MistakeRecord(
            row=row["row"],
            path=row.get("path") or None,
            label=classes[row["label"]],
            prediction=classes[row["prediction"]] if row["prediction"] < len(classes) else "",
            confidence=row["confidence"],
        )
        for row in rows
    ]
