"""What ``import temper`` offers to code: the commands as functions that return records."""

from temper.api.evaluation import evaluate
from temper.api.fits import FitResult, Reading, fit
from temper.api.runs import TrainedRun, train
from temper.api.sweeps import SweepResult, resume_sweep, sweep
from temper.deployment import calibrate, export, predict
from temper.leaderboard import leaderboard
from temper.recipe import load_recipe

__all__ = [
    "FitResult",
    "Reading",
    "SweepResult",
    "TrainedRun",
    "calibrate",
    "evaluate",
    "export",
    "fit",
    "leaderboard",
    "load_recipe",
    "predict",
    "resume_sweep",
    "sweep",
    "train",
]
