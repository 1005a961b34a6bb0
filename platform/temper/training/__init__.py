"""The training loop: gets batches, a worker and a tracker from outside, and does not use Ray."""

from temper.training.candidate import Origin
from temper.training.data import TrainData
from temper.training.deferred_validation import (
    DeferredValidation,
    Validator,
    finish_validation,
    validate_waiting,
)
from temper.training.longer import differences, lengthen, told, why_not_longer
from temper.training.loop import train
from temper.training.plan import PhasePlan, plan_phases
from temper.training.probe import read_head
from temper.training.rate import RateTest
from temper.training.samples import read_samples
from temper.training.saving import check_best, load_best, read_last, recipe_of, save_best
from temper.training.state import TrainState, read_state
from temper.training.worker import Action, DistributedWorker, Notice, Worker

__all__ = [
    "Action",
    "DeferredValidation",
    "DistributedWorker",
    "Notice",
    "Origin",
    "PhasePlan",
    "RateTest",
    "TrainData",
    "TrainState",
    "Validator",
    "Worker",
    "check_best",
    "differences",
    "finish_validation",
    "lengthen",
    "load_best",
    "plan_phases",
    "read_head",
    "read_last",
    "read_samples",
    "read_state",
    "recipe_of",
    "save_best",
    "told",
    "train",
    "validate_waiting",
    "why_not_longer",
]
