"""Fitting a temperature and thresholds to validation images."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from temper.errors import DataError
from temper.evaluation.rejection.scores import Scores, score_images
from temper.records import Calibration

LOWEST: Final = 0.01
HIGHEST: Final = 100.0
"""Of the temperatures tried; where every validation image is right, the likelihood would have it 0."""
NUM_HALVINGS: Final = 60


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in 0.01..100 at which ``logits`` (N,C) make ``labels`` (N,) most likely.

    Guo et al. 2017, arXiv:1706.04599. The loss is convex in 1/T, so its only minimum is found by halving the
    interval, on the sign of the slope: mean over images of E_p[logit] - logit of the label.
    """
    values, rows = logits.double(), torch.arange(len(labels))

    def slope(temperature: float) -> float:
        probabilities = (values / temperature).softmax(1)
        return float(((probabilities * values).sum(1) - values[rows, labels]).mean())

    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        # Rising in 1/T: at this temperature the answers are too sure.
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def calibrate_model(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    checkpoint: str,
    coverage: float,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Calibration:
    """Fit to validation images uint8 (N,3,H,W) with labels (N,); ``checkpoint`` is the digest of the weights.

    Raises:
        DataError: no images.
        ModelError: logits that are not finite.
    """
    if not len(images):
        raise DataError("no validation images to calibrate on")
    scores = score_images(model, images, batch_size=batch_size, device=device)
    temperature = fit_temperature(scores.logits, torch.from_numpy(labels))
    limits = {name: _limit(values, coverage) for name, values in scores.suspicion(temperature).items()}
    return Calibration(
        checkpoint=checkpoint,
        num_images=len(labels),
        temperature=temperature,
        coverage=coverage,
        min_confidence=-limits["confidence"],
        max_energy=limits["energy"],
        max_squeezing=limits["squeezing"],
    )


def _limit(suspicion: Tensor, coverage: float) -> float:
    """The smallest of the values (N,) that at least the share ``coverage`` of them does not exceed."""
    place = math.ceil(coverage * len(suspicion) - 1e-9)
    return float(suspicion.sort().values[max(1, place) - 1])


def judge_scores(scores: Scores, calibration: Calibration) -> dict[str, Tensor]:
    """Score -> (N,) bool: the image is beyond its threshold."""
    found = scores.suspicion(calibration.temperature)
    limits = {
        "confidence": -calibration.min_confidence,
        "energy": calibration.max_energy,
        "squeezing": calibration.max_squeezing,
    }
    return {name: found[name] > limit for name, limit in limits.items()}
