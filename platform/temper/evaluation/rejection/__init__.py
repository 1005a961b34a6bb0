"""When not to trust an answer: calibrated confidence, and flags for images unlike those of the training.

Flags are measured, not promised: an attacker who knows a flag can evade it (Carlini and Wagner 2017,
arXiv:1705.07263). Robust accuracy never counts a rejected image as won.
"""

from temper.evaluation.rejection.calibrate import calibrate_model, fit_temperature, judge_scores
from temper.evaluation.rejection.measure import Unlike, measure_rejection
from temper.evaluation.rejection.scores import Scores, score_images
from temper.evaluation.rejection.settings import RejectionSpec

__all__ = [
    "RejectionSpec",
    "Scores",
    "Unlike",
    "calibrate_model",
    "fit_temperature",
    "judge_scores",
    "measure_rejection",
    "score_images",
]
