"""How good an epoch is: clean and robust accuracy on the validation split, over all ranks."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from temper.attacks import PGD, attack_mode
from temper.data import Images, stratified_subset
from temper.models import TaskModel
from temper.recipe import Recipe
from temper.seeds import derive_seed
from temper.training.feed import Feed
from temper.training.worker import Worker

BATCH_SIZE = 256


def validate_epoch(recipe: Recipe, model: TaskModel, feed: Feed, worker: Worker) -> dict[str, float]:
    """``val/<task>/<metric>``, fractions 0..1: clean accuracy of every task, robust accuracy of the target.

    Robust accuracy is measured with PGD of ``validation.steps`` within the recipe's threat model, on a
    fixed subset (0 steps: not at all): a cheap proxy that orders epochs and trials, and no claim about
    robustness.
    """
    pgd = PGD(norm=recipe.threat.norm, eps=recipe.threat.eps, steps=max(1, recipe.validation.steps))
    target = _subset(feed.val["target"], recipe)
    metrics: dict[str, float] = {}
    with attack_mode(model):

        def attacked(images: Tensor, labels: Tensor, start: int) -> Tensor:
            generator = torch.Generator(worker.device)
            generator.manual_seed(derive_seed(recipe.seed, "validate", worker.rank, start))
            return pgd.perturb(model, images, labels, generator)

        passes = {"": None, "robust_": attacked} if recipe.validation.steps else {"": None}
        for name, perturb in passes.items():
            counts = _count(model, target, "target", len(feed.classes["target"]), worker, perturb)
            metrics[f"val/target/{name or 'clean_'}acc"] = _accuracy(counts)
            metrics[f"val/target/{name}balanced_acc"] = _balanced_accuracy(counts)
        if "source" in feed.val:
            counts = _count(model, feed.val["source"], "source", len(feed.classes["source"]), worker, None)
            metrics["val/source/clean_acc"] = _accuracy(counts)
    return metrics


def _count(
    model: TaskModel,
    images: Images,
    task: str,
    num_classes: int,
    worker: Worker,
    perturb: Callable[[Tensor, Tensor, int], Tensor] | None,
) -> Tensor:
    """(2,C): images classified correctly, and images in all, of each class over all ranks."""
    counts = torch.zeros(2, num_classes, dtype=torch.float64)
    mine = np.arange(worker.rank, len(images.labels), worker.world_size)
    for start in range(0, len(mine), BATCH_SIZE):
        rows = mine[start : start + BATCH_SIZE]
        batch = torch.from_numpy(images.images[rows]).to(worker.device).float() / 255
        labels = torch.from_numpy(images.labels[rows]).to(worker.device)
        if perturb is not None:
            batch = perturb(batch, labels, start)
        with torch.no_grad():
            correct = model(batch, task=task).argmax(1) == labels
        counts[0] += torch.bincount(labels[correct].cpu(), minlength=num_classes)
        counts[1] += torch.bincount(labels.cpu(), minlength=num_classes)
    return worker.sum(counts)


def _subset(images: Images, recipe: Recipe) -> Images:
    chosen = stratified_subset(images.labels, recipe.validation.max_images, recipe.seed)
    return Images(images=images.images[chosen], labels=images.labels[chosen], rows=images.rows[chosen])


def _accuracy(counts: Tensor) -> float:
    return float(counts[0].sum() / counts[1].sum())


def _balanced_accuracy(counts: Tensor) -> float:
    present = counts[1] > 0
    return float((counts[0][present] / counts[1][present]).mean())
