"""The estimated cost of a sweep: passes from its recipes, seconds from a few passes on this machine."""

import time
from collections.abc import Sequence

import torch

from temper.host import use_cpu
from temper.models import build_model
from temper.recipe import Recipe
from temper.run.open_data import OpenData
from temper.search import Trial
from temper.spec import Spec

NUM_TIMED = 3
"""Passes that are timed, after one that is not."""


class Estimate(Spec):
    """Of trials that all run to their last epoch: early stopping only takes away from it."""

    num_trials: int
    num_passes: float
    """Of one image, forward and backward: training, its attack and validation."""
    seconds_per_pass: float
    """On this machine, with the threads of one worker."""
    compute_s: float
    """Of one worker after the other."""


def estimate_cost(trials: Sequence[Trial], data: OpenData, num_trials: int) -> Estimate:
    """The cost of ``num_trials`` trials like ``trials``, and of their pretraining, which is done once.

    Raises:
        ModelError: weights that are not there.
    """
    first = trials[0].recipe
    mean = sum(num_passes(trial.recipe, data) for trial in trials) / len(trials)
    passes = mean * num_trials
    if first.pretrain is not None:
        passes += first.pretrain.epochs * len(data.shards["source"].rows("train"))
    seconds = seconds_per_pass(first, data)
    return Estimate(
        num_trials=num_trials, num_passes=passes, seconds_per_pass=seconds, compute_s=passes * seconds
    )


def num_passes(recipe: Recipe, data: OpenData) -> float:
    """Passes of one image, forward and backward, of a whole run."""
    adversary = recipe.objective.adversary if recipe.is_hardened else None
    per_image = 1.0 + (getattr(adversary, "steps", 1) if adversary is not None else 0)
    per_image += 1.0 if recipe.objective.uses_source else 0.0
    images = len(data.shards["target"].rows("train"))
    validated = len(data.shards["target"].rows("val"))
    validated = min(validated, recipe.validation.max_images or validated)
    # A clean pass goes forward only, about a third of the work.
    validation = validated * (recipe.validation.steps + 2 / 3) / recipe.validation.every_epochs
    return recipe.epochs * (images * per_image + validation)


def seconds_per_pass(recipe: Recipe, data: OpenData) -> float:
    """The fastest of a few passes of what a worker has of a batch, per image."""
    use_cpu(recipe.workers.cpus_per_worker)
    size, count = recipe.data.image_size, -(-recipe.data.batch_size // recipe.workers.num_shares)
    model = build_model(recipe.model, data.classes, image_size=size, seed=recipe.seed).train()
    images = torch.zeros(count, 3, size, size)
    fastest = float("inf")
    for _ in range(1 + NUM_TIMED):
        started = time.perf_counter()
        model(images).sum().backward()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest / count
