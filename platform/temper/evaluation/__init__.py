"""Honest evaluation: an attack suite as a cascade, every result checked, gates that block.

Add an attack: a ``Member`` in ``members/``, its name in ``AnyMember``, its place in a suite.
"""

from temper.evaluation.evaluate import (
    accuracy_of,
    conclude,
    evaluate_chunks,
    evaluate_images,
    predict_logits,
    prepare,
)
from temper.evaluation.plan import CascadePlan, EvaluationPlan
from temper.evaluation.probe import LinearProbe
from temper.evaluation.result import Evaluation
from temper.evaluation.resuming import drop_outdated
from temper.evaluation.settings import EvaluationSpec
from temper.evaluation.store import ChunkStore
from temper.evaluation.suite import Suite, suite_for

__all__ = [
    "CascadePlan",
    "ChunkStore",
    "Evaluation",
    "EvaluationPlan",
    "EvaluationSpec",
    "LinearProbe",
    "Suite",
    "accuracy_of",
    "conclude",
    "drop_outdated",
    "evaluate_chunks",
    "evaluate_images",
    "predict_logits",
    "prepare",
    "suite_for",
]
