"""Calibrating a model on validation images, and measuring what rejection does on its test images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from temper.attacks import attack_mode
from temper.errors import ModelError
from temper.evaluation import Evaluation
from temper.evaluation.rejection import Unlike, calibrate_model, measure_rejection, score_images
from temper.records import Calibration, RejectionRecord
from temper.run.material import Material
from temper.run.target import EvaluationTarget
from temper.spec import Threat


def calibrate(target: EvaluationTarget, material: Material | None) -> Calibration | None:
    """Fit it before hours of attacks. ``None`` without ``material``.

    Raises:
        ModelError: no finite answer to some of the images that rejection is measured on.
    """
    if material is None:
        return None
    others = {one.name: one.images for one in material.unlike}
    with attack_mode(target.model):
        for name, images in {"validation": material.val.images, "test": target.test.images, **others}.items():
            try:
                score_images(target.model, images, batch_size=material.batch_size, device=target.device)
            except ModelError as problem:
                raise ModelError(
                    f"evaluation.rejection: {problem}. Seen on the images of '{name}', before any attack; "
                    "fix the model, or leave rejection out"
                ) from None
        return calibrate_on(target, material)


def calibrate_on(target: EvaluationTarget, material: Material) -> Calibration:
    """Fit to the images of ``material``, whose ``coverage`` is the share that thresholds let pass."""
    return calibrate_model(
        target.model,
        material.val.images,
        material.val.labels,
        checkpoint=target.digest,
        coverage=material.coverage,
        batch_size=material.batch_size,
        device=target.device,
    )


def reject(
    target: EvaluationTarget,
    evaluation: Evaluation,
    material: Material | None,
    calibration: Calibration | None,
) -> RejectionRecord | None:
    """Measure it. ``None`` without ``material``."""
    if material is None or calibration is None:
        return None
    found = evaluation.adversarial
    attacked = attacked_images(found.threat, found.images, found.prediction)
    return measure_on(target, attacked, evaluation.worst_logits, material, calibration)


def attacked_images(threat: Threat, images: Tensor, predictions: np.ndarray) -> list[Unlike]:
    """Adversarial examples (K,3,H,W) that the model has an answer to; where it has none, the gates block."""
    answered = images[torch.from_numpy(predictions >= 0)]
    return [Unlike("adversarial", threat.label, answered)] if len(answered) else []


def measure_on(
    target: EvaluationTarget,
    attacked: Sequence[Unlike],
    worst_logits: Tensor,
    material: Material,
    calibration: Calibration,
) -> RejectionRecord:
    """On test images, those unlike them, and attacked ones; ``worst_logits`` (N,C): answers under attack."""
    with attack_mode(target.model):
        return measure_rejection(
            target.model,
            target.test.images,
            target.test.labels,
            worst_logits,
            [*material.unlike, *attacked],
            calibration,
            batch_size=material.batch_size,
            device=target.device,
        )
