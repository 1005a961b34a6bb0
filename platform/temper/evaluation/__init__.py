"""Honest evaluation: an attack suite as a cascade, every result checked, gates that block.

Add an attack: a ``Member`` in ``members.py``, its name in ``AnyMember``, its place in a suite.
"""

from temper.evaluation.evaluate import Evaluation, accuracy_of, evaluate_images, predict_logits
from temper.evaluation.outcomes import read_outcomes, write_outcomes
from temper.evaluation.probe import linear_probe
from temper.evaluation.statistics import wilson
from temper.evaluation.suite import EvaluationSpec, Suite, suite_for

__all__ = [
    "Evaluation",
    "EvaluationSpec",
    "Suite",
    "accuracy_of",
    "evaluate_images",
    "linear_probe",
    "predict_logits",
    "read_outcomes",
    "suite_for",
    "wilson",
    "write_outcomes",
]
