"""From class folders to a model in one call: what `temper fit` does.

It adds no way of training or measuring: it looks at the images, times a few steps, writes a recipe and a
search space, and hands them to the verbs that there are.
"""

from temper.fitting.driver import FitResult, FitWatch, resume_fit, run_fit
from temper.fitting.look import Look
from temper.fitting.outcome import Model, Outcome
from temper.fitting.plan import FitPlan
from temper.fitting.request import FitFolder, FitRequest, Reading

__all__ = [
    "FitFolder",
    "FitPlan",
    "FitRequest",
    "FitResult",
    "FitWatch",
    "Look",
    "Model",
    "Outcome",
    "Reading",
    "resume_fit",
    "run_fit",
]
