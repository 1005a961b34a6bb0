"""The estimated cost of runs: passes from their recipes, seconds and memory from a few passes here."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from temper.host import use_cpu
from temper.models import TaskModel, build_model, count_params
from temper.recipe import Recipe
from temper.run.open_data import OpenData
from temper.spec import Spec

NUM_TIMED = 3
"""Passes that are timed, after one that is not."""
ENOUGH_S = 5.0
"""No further pass is timed after this."""
FLOAT = 4
"""Bytes of a number."""


class Estimate(Spec):
    """Of runs that all reach their last epoch: early stopping only takes away from it."""

    num_trials: int
    num_passes: float
    """Of one image, forward and backward: training, its attack and validation."""
    seconds_per_pass: float
    """On this machine's CPU, with the threads of one worker."""
    compute_s: float
    """Of one worker after the other."""
    memory_bytes: int
    """Of a worker, at most: weights, gradients, optimizer, and what a step keeps for its backward pass."""


def estimate_cost(
    recipes: Sequence[Recipe], data: OpenData, num_trials: int, *, max_images: int | None = None
) -> Estimate:
    """The cost of ``num_trials`` runs like ``recipes``, and of their pretraining, which is done once.

    No pass that is timed has more than ``max_images``.

    Raises:
        ModelError: weights that are not there.
    """
    first = recipes[0]
    passes = sum(num_passes(recipe, data) for recipe in recipes) / len(recipes) * num_trials
    if first.pretrain is not None:
        passes += first.pretrain.epochs * len(data.shards["source"].rows("train"))
    seconds, memory = _measure_pass(first, data, max_images)
    return Estimate(
        num_trials=num_trials,
        num_passes=passes,
        seconds_per_pass=seconds,
        compute_s=passes * seconds,
        memory_bytes=memory,
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


def _measure_pass(recipe: Recipe, data: OpenData, max_images: int | None) -> tuple[float, int]:
    """Seconds per image of the fastest of a few passes of a worker's part of a batch, and bytes of memory."""
    use_cpu(recipe.workers.cpus_per_worker)
    whole = min(recipe.data.batch_size, len(data.shards["target"].rows("train")))
    size, count = recipe.data.image_size, -(-whole // recipe.workers.num_shares)
    model = build_model(recipe.model, data.classes, image_size=size, seed=recipe.seed).train()
    num_timed = min(count, max_images or count)
    images = torch.zeros(num_timed, 3, size, size)
    kept = _kept_bytes(model, images)
    times: list[float] = []
    while len(times) < NUM_TIMED and sum(times) < ENOUGH_S:
        started = time.perf_counter()
        model(images).sum().backward()
        times.append(time.perf_counter() - started)
    # Weights and gradients; momentum, or AdamW's two moments; the average.
    copies = 2 + (2 if recipe.optim.kind == "adamw" else 1) + (recipe.optim.ema_decay is not None)
    memory = FLOAT * copies * count_params(model) + kept * count // num_timed
    return min(times) / num_timed, memory


def _kept_bytes(model: TaskModel, images: Tensor) -> int:
    """What a forward pass of ``images`` keeps for the backward pass, beside the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images).sum().backward()
    return sum(kept.values())
