"""How well rejection works, on images that it was not fitted to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from temper.evaluation.metrics import binary_auroc, expected_calibration_error
from temper.evaluation.rejection.calibrate import judge_scores
from temper.evaluation.rejection.scores import Scores, score_images
from temper.records import Calibration, CoveragePoint, Detection, RejectionRecord, UnderAttack

COVERAGES: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
Kind = Literal["out of distribution", "adversarial"]


@dataclass(frozen=True)
class Unlike:
    """Images that should be told from clean test images: uint8, or floats in [0,1], (N,3,H,W), N > 0."""

    kind: Kind
    name: str
    images: np.ndarray | Tensor


def measure_rejection(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    worst_logits: Tensor,
    others: Sequence[Unlike],
    calibration: Calibration,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> RejectionRecord:
    """On test images uint8 (N,3,H,W) with labels (N,), and on ``others``.

    ``worst_logits`` (N,C) are the answers to the test images as attacks left them.

    Raises:
        ModelError: logits that are not finite.
    """
    clean, truth = score_images(model, images, batch_size=batch_size, device=device), torch.from_numpy(labels)
    temperature = calibration.temperature
    right, confidence = clean.logits.argmax(1) == truth, clean.confidence(temperature)
    accepted = ~judge_scores(clean, calibration)["confidence"]
    risks = risk_by_coverage(confidence, right)
    return RejectionRecord(
        calibration=calibration,
        ece=expected_calibration_error(clean.logits / temperature, truth),
        accepted=_share(accepted),
        accepted_acc=_share(right[accepted]) if accepted.any() else None,
        auroc_errors=None if right.all() or not right.any() else binary_auroc(confidence, right.long()),
        aurc=float(risks.mean()),
        curve=[
            CoveragePoint(coverage=share, risk=float(risks[max(1, round(share * len(risks))) - 1]))
            for share in COVERAGES
        ],
        under_attack=_under_attack(worst_logits, truth, calibration),
        detections=[
            _detect(
                one,
                clean,
                score_images(model, one.images, batch_size=batch_size, device=device),
                calibration,
            )
            for one in others
        ],
    )


def risk_by_coverage(confidence: Tensor, right: Tensor) -> Tensor:
    """(N,): the share of wrong answers among the 1, 2, ... N most confident ones, in 0..1.

    Of answers with the same confidence none comes before another: each has the mean error of them all. The
    mean of what is returned is the area under the risk-coverage curve (Geifman and El-Yaniv 2017,
    arXiv:1705.08500).
    """
    values, inverse = torch.unique(-confidence, return_inverse=True)
    count = torch.bincount(inverse, minlength=len(values)).double()
    wrong = torch.bincount(inverse, weights=(~right).double(), minlength=len(values))
    errors = torch.repeat_interleave(wrong / count, count.long())
    return errors.cumsum(0) / torch.arange(1, len(errors) + 1, dtype=torch.float64)


def _under_attack(worst_logits: Tensor, labels: Tensor, calibration: Calibration) -> UnderAttack:
    confidence = (worst_logits.double() / calibration.temperature).softmax(1).amax(1)
    accepted = confidence >= calibration.min_confidence
    wrong = worst_logits.argmax(1) != labels
    return UnderAttack(accepted=_share(accepted), accepted_and_wrong=_share(accepted & wrong))


def _detect(one: Unlike, clean: Scores, scores: Scores, calibration: Calibration) -> Detection:
    flags = judge_scores(scores, calibration)
    own, theirs = clean.suspicion(calibration.temperature), scores.suspicion(calibration.temperature)
    num_clean, num_others = len(clean.logits), len(scores.logits)
    is_other = torch.cat([torch.zeros(num_clean), torch.ones(num_others)]).long()
    return Detection(
        kind=one.kind,
        name=one.name,
        num_images=num_others,
        auroc={name: binary_auroc(torch.cat([own[name], theirs[name]]), is_other) for name in own},
        flagged={name: _share(flag) for name, flag in flags.items()},
    )


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
