"""How good an epoch is: clean and robust accuracy on the validation split, over all ranks."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from temper.attacks import PGD, PatchPGD, attack_mode, in_portions, perturb_channels
from temper.batches import as_floats
from temper.data import Images, Part, stratified_subset
from temper.models import TaskModel, folded_copy
from temper.recipe import Recipe
from temper.seeds import derive_seed
from temper.training.data import TrainData, generator_of
from temper.training.worker import Substitute, Worker

BATCH_SIZE = 256
VALIDATED_PIXELS = 2**20
"""Of a batch on a CPU, where an attack holds several copies of it: 256 images at 64 px, 64 at 128 px."""
BALANCED = {"target/clean": "val/target/balanced_acc", "target/robust": "val/target/robust_balanced_acc"}

Counts = dict[str, Tensor]
"""``<task>/<pass>`` -> (2,C): images classified correctly, and images in all, of each class."""


def validate_epoch(recipe: Recipe, model: TaskModel, feed: TrainData, worker: Worker) -> dict[str, float]:
    """``val/<task>/<metric>``, fractions 0..1: clean accuracy of every task, robust accuracy of the target.

    Robust accuracy is measured with PGD of ``validation.steps`` within the recipe's threat model, on a
    fixed subset (0 steps: not at all): a cheap proxy that orders epochs and trials, and no claim about
    robustness. All ranks judge the model that is kept, which is the chief's.
    """
    worker.share_buffers(model)
    shares = range(worker.rank, feed.num_shares, worker.world_size)
    counts = add_counts(
        count_correct(
            recipe, model, feed.val, feed.classes, Substitute(worker.device, share, feed.num_shares)
        )
        for share in shares
    )
    return metrics_of({name: worker.sum(values) for name, values in counts.items()})


def add_counts(counts: Iterable[Counts]) -> Counts:
    """The sum of what several shares have counted."""
    first, *others = counts
    return {name: sum((one[name] for one in others), first[name]) for name in first}


def count_correct(
    recipe: Recipe,
    model: TaskModel,
    val: dict[str, Images],
    classes: dict[str, list[str]],
    worker: Worker,
) -> Counts:
    """The counts of one rank's part of the images ``val`` (by task)."""
    pgd = attack_of(recipe)
    target = _subset(val["target"], recipe)
    counts: Counts = {}
    with attack_mode(model):
        few = as_floats(torch.from_numpy(target.images[:4]), worker.device)
        twin = folded_copy(model, few) if recipe.validation.steps else model

        def attacked(images: Tensor, labels: Tensor, start: int, part: Part) -> Tensor:
            seed = derive_seed(recipe.seed, "validate", 0, start)
            generator = generator_of([part], worker.device, seed)
            return perturb_channels(pgd, twin, images, labels, generator, recipe.threat.channels)

        passes = {"clean": None, "robust": attacked} if recipe.validation.steps else {"clean": None}
        for name, perturb in passes.items():
            num_classes = len(classes["target"])
            counts[f"target/{name}"] = _count(model, target, "target", num_classes, worker, perturb)
        if "source" in val:
            num_classes = len(classes["source"])
            counts["source/clean"] = _count(model, val["source"], "source", num_classes, worker, None)
    return counts


def attack_of(recipe: Recipe) -> PGD:
    """What epochs are compared under: PGD within the recipe's threat model, or a patch at a random place."""
    threat, steps = recipe.threat, max(1, recipe.validation.steps)
    if threat.norm == "patch":
        return PatchPGD(eps=threat.eps, steps=steps)
    return PGD(norm=threat.norm, eps=threat.eps, steps=steps)


def metrics_of(counts: Counts) -> dict[str, float]:
    """``val/<task>/<metric>`` from the counts of all ranks."""
    metrics: dict[str, float] = {}
    for name, values in counts.items():
        metrics[f"val/{name}_acc"] = _accuracy(values)
        if name in BALANCED:
            metrics[BALANCED[name]] = _balanced_accuracy(values)
    return metrics


def _batch_size(images: Images, device: torch.device) -> int:
    """Fewer where images are large."""
    if device.type != "cpu":
        return BATCH_SIZE
    return max(1, min(BATCH_SIZE, VALIDATED_PIXELS // math.prod(images.images.shape[-2:])))


def _count(
    model: TaskModel,
    images: Images,
    task: str,
    num_classes: int,
    worker: Worker,
    perturb: Callable[[Tensor, Tensor, int, Part], Tensor] | None,
) -> Tensor:
    """(2,C): images classified correctly, and images in all, of each class in this rank's share."""
    counts = torch.zeros(2, num_classes, dtype=torch.float64)
    for start, part in _own_parts(len(images.labels), _batch_size(images, worker.device), worker):
        # By number, which copies: images out of Ray's object store are not writable, and torch warns of that.
        rows = np.arange(start + part.start, start + part.end)
        batch = as_floats(torch.from_numpy(images.images[rows]), worker.device)
        labels = torch.from_numpy(images.labels[rows]).to(worker.device)
        if perturb is not None:
            batch = perturb(batch, labels, start, part)
        with torch.no_grad():
            correct = in_portions(partial(model, task=task), batch).argmax(1) == labels
        counts[0] += torch.bincount(labels[correct].cpu(), minlength=num_classes)
        counts[1] += torch.bincount(labels.cpu(), minlength=num_classes)
    return counts


def _own_parts(count: int, size: int, worker: Worker) -> Iterator[tuple[int, Part]]:
    """Where each batch of ``size`` out of ``count`` images begins, and what of it is this rank's."""
    low, high = (count * rank // worker.world_size for rank in (worker.rank, worker.rank + 1))
    for start in range(low // size * size, high, size):
        first, last = max(start, low), min(start + size, high)
        if first < last:
            yield start, Part(first - start, last - start, min(size, count - start))


def _subset(images: Images, recipe: Recipe) -> Images:
    chosen = stratified_subset(images.labels, recipe.validation.max_images, recipe.seed)
    return Images(images=images.images[chosen], labels=images.labels[chosen], rows=images.rows[chosen])


def _accuracy(counts: Tensor) -> float:
    return float(counts[0].sum() / counts[1].sum())


def _balanced_accuracy(counts: Tensor) -> float:
    present = counts[1] > 0
    return float((counts[0][present] / counts[1][present]).mean())
