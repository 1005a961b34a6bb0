"""What a record says of clean answers, computed again from its outcomes."""

from collections.abc import Iterator

import numpy as np

from temper.records import BinaryRecord
from temper.statistics import (
    baselines,
    confusion,
    most_confident,
    operating_point,
    positive_scores,
    roc_curve,
    validation_beside,
    wilson,
)
from temper.verification.evidence import Evidence
from temper.verification.record import Check, check_of, differences


def check_answers(evidence: Evidence) -> Check:
    """Baselines, confusion matrix, operating points, mistakes, and the arithmetic of validation."""
    record = evidence.record
    if record.confusion is None:
        return check_of("answers", [], "an earlier record, without confusion matrix and mistakes")
    return check_of("answers", _problems(evidence), f"{len(record.mistakes)} mistakes, as in the outcomes")


def _problems(evidence: Evidence) -> Iterator[str]:
    record, columns = evidence.record, evidence.columns
    labels, predictions, classes = columns["label"], columns["prediction"], record.data.classes
    yield from differences("baselines", record.baselines, baselines(labels, classes))
    yield from differences("confusion", record.confusion, confusion(labels, predictions, classes))
    if record.binary is not None:
        yield from _binary(evidence, record.binary)
    yield from _mistakes(evidence)
    claimed = record.validation
    if claimed is not None:
        acc = wilson(min(claimed.acc.count, claimed.acc.total), claimed.acc.total)
        again = validation_beside(acc, claimed.balanced_acc, record.clean_acc)
        yield from differences("validation", claimed, again)


def _binary(evidence: Evidence, claimed: BinaryRecord) -> Iterator[str]:
    """At the thresholds that the record names; where they come from only a deep check can tell."""
    columns, classes = evidence.columns, evidence.record.data.classes
    scores, labels = positive_scores(columns["prediction"], columns["confidence"]), columns["label"]
    yield from differences("binary.positive", claimed.positive, classes[1] if len(classes) == 2 else None)
    yield from differences("binary.at_half", claimed.at_half, operating_point(0.5, scores, labels))
    if claimed.chosen is not None:
        again = operating_point(claimed.chosen.threshold, scores, labels)
        yield from differences("binary.chosen", claimed.chosen, again)
    yield from differences("binary.roc", claimed.roc, roc_curve(scores, labels))


def _mistakes(evidence: Evidence) -> Iterator[str]:
    record, columns = evidence.record, evidence.columns
    classes, confidences = record.data.classes, columns["confidence"]
    wrong = ~columns["correct"] & (confidences > 0)
    places = most_confident(wrong, confidences)
    if len(places) != len(record.mistakes):
        yield f"mistakes are {len(record.mistakes)}, the outcomes have {len(places)}"
        return
    for index, (claimed, place) in enumerate(zip(record.mistakes, places.tolist(), strict=True)):
        answer = int(columns["prediction"][place])
        found = {
            "row": int(columns["row"][place]),
            "path": (str(columns["path"][place]) if "path" in columns else "") or None,
            "label": classes[int(columns["label"][place])],
            "prediction": classes[answer] if answer < len(classes) else "",
            "confidence": float(np.float64(confidences[place])),
        }
        yield from differences(f"mistakes.{index}", claimed, found)
