"""What a record says of rejection, against the rest of it; scores of single images are not kept."""

from collections.abc import Iterator

from temper.verification.evidence import Evidence
from temper.verification.record import Check, check_of, differences

SLACK = 1e-6
"""Shares are rounded."""


def check_rejection(evidence: Evidence) -> Check:
    """The figures that follow from outcomes and files, and those that bound one another."""
    measured = evidence.record.rejection
    if measured is None:
        return check_of("rejection", [], "not measured")
    return check_of("rejection", _problems(evidence), f"fitted to {measured.calibration.num_images} images")


def _problems(evidence: Evidence) -> Iterator[str]:
    record, measured = evidence.record, evidence.record.rejection
    assert measured is not None
    correct, robust = (evidence.columns[name].mean() for name in ("correct", "robust"))
    if "checkpoint" in record.files:
        fitted_for = record.files["checkpoint"].sha256
        yield from differences(
            "rejection.calibration.checkpoint", measured.calibration.checkpoint, fitted_for
        )
    # Among all the images, however sure the answers, the share of wrong ones is that of the whole.
    whole = [point.risk for point in measured.curve if point.coverage == 1]
    yield from differences("rejection.curve at coverage 1", whole, [float(1 - correct)], SLACK)
    if measured.accepted * (measured.accepted_acc or 0.0) > correct + SLACK:
        yield "rejection.accepted_acc: more right answers are accepted than there are"
    if measured.accepted * (1 - (measured.accepted_acc or 0.0)) > 1 - correct + measured.accepted * SLACK:
        yield "rejection.accepted_acc: more wrong answers are accepted than there are"
    under = measured.under_attack
    if under.accepted_and_wrong > min(under.accepted, float(1 - robust)) + SLACK:
        yield "rejection.under_attack: more wrong answers are accepted than there are"
    answered = int((evidence.saved.predictions >= 0).sum())
    attacked = [one.num_images for one in measured.detections if one.kind == "adversarial"]
    yield from differences(
        "rejection.detections of attacked images", attacked, [answered] if answered else []
    )
