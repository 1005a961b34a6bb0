"""What a network would give and cost here: its probe's accuracy, and the seconds of its steps."""

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from temper.batches import Batch
from temper.cluster.datasets import build_train_data, decode_splits
from temper.data import Images, ShardSet, join
from temper.evaluation.evaluate import predict_logits
from temper.fitting.plan import Measured
from temper.host import choose_device, use_cpu
from temper.models import TaskModel, build_model, set_trainable
from temper.recipe import Recipe, build_recipe
from temper.run.open_data import OpenData
from temper.seeds import derive_seed
from temper.training import TrainData, Worker, plan_phases
from temper.training.data import paired_batches
from temper.training.linear_head import Examples, solve_head
from temper.training.plan import Moment
from temper.training.start_model import StartModel
from temper.training.step import TrainStep

MAX_IMAGES = 1000
"""Of a training split that a probe is fitted to and steps are timed on."""
FOLDS = 4
"""Of the cross-validation of a probe."""
MAX_TIMED = 20
"""Steps, after one that is not timed."""
ENOUGH_S = 2.0
"""Of timed steps. What counts is their mean: what else the machine does will go on, too."""
RATE = 1e-4
"""Of the timed steps, whose results are thrown away."""
PLAIN = {"objective.adversary": None, "validation.metric": "val/target/clean_acc"}


def measure(document: Mapping[str, Any], shards: Mapping[str, ShardSet], *, is_balanced: bool) -> Measured:
    """The start of the recipe ``document``, on a subset of ``shards`` (by task).

    Raises:
        ModelError: weights that cannot be used, or a network that needs images of another size.
    """
    settled = {"epochs": 2, "optim.lr": RATE, "pretrain": None}
    hardened = build_recipe(document, settled)
    plain = build_recipe(document, {**settled, **PLAIN})
    use_cpu(hardened.workers.cpus_per_worker)
    device = choose_device(hardened.workers.use_gpu)
    subset = {
        task: own.training_subset(MAX_IMAGES, derive_seed(hardened.seed, "fit", task))
        for task, own in shards.items()
    }
    data = OpenData(subset)
    model = _build(hardened, data).to(device)
    decoded = decode_splits(hardened, data, with_ray=False)
    score = None
    if hardened.model.weights is not None:
        known = join([decoded["target/train"], decoded["target/val"]])
        seed = derive_seed(hardened.seed, "fit", "folds")
        count = len(data.classes["target"])
        score = probe_score(model, known, device, num_classes=count, is_balanced=is_balanced, seed=seed)
    step_s = seconds_per_step(plain, data, decoded, device)
    attacked_step_s = max(seconds_per_step(hardened, data, decoded, device), step_s)
    batch_size = min(hardened.data.batch_size, len(decoded["target/train"].labels))
    extra = (attacked_step_s - step_s) / getattr(hardened.objective.adversary, "steps", 1)
    return Measured(
        backbone=hardened.model.backbone,
        weights=hardened.model.weights,
        image_size=hardened.data.image_size,
        fit=hardened.data.fit,
        score=score,
        step_s=step_s,
        attacked_step_s=attacked_step_s,
        pass_s=(extra or step_s) / batch_size,
    )


def probe_score(
    model: TaskModel, images: Images, device: torch.device, *, num_classes: int, is_balanced: bool, seed: int
) -> float:
    """Cross-validated accuracy 0..1 of the best linear head on the features of ``model``.

    A validation split of a few hundred images would tell sizes apart by chance.
    """
    features = predict_logits(model.eval().features, images.images, device=device).numpy()
    examples = Examples(features, images.labels)
    folds = stratified_folds(images.labels, seed)
    right = np.zeros(len(folds), bool)
    for fold in range(FOLDS):
        fitted, held = (examples.where(part) for part in (folds != fold, folds == fold))
        head = solve_head(fitted, held, num_classes, is_balanced=is_balanced)
        right[folds == fold] = (held.features @ head.weight.T + head.bias).argmax(1) == held.labels
    counts = np.bincount(images.labels)[images.labels]
    return float(np.average(right, weights=1 / counts if is_balanced else None))


def stratified_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """A fold (N,) for each image, with every class shared out evenly."""
    rng = np.random.default_rng(seed)
    folds = np.zeros(len(labels), int)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        folds[own] = np.arange(len(own)) % FOLDS
    return folds


def seconds_per_step(recipe: Recipe, data: OpenData, decoded: dict[str, Any], device: torch.device) -> float:
    """The mean of a few steps of the last phase of ``recipe``, a whole batch each."""
    feed = build_train_data(recipe, data, decoded)
    model = _build(recipe, data).to(device)
    plans = plan_phases(recipe, model)
    trainable = set_trainable(model, plans[-1].phase.trainable, recipe.objective.trained_heads)
    optimizer = recipe.optim.build(trainable, plans[-1].lr_factors)
    step = TrainStep(
        recipe, feed, plans[-1], model, optimizer, Worker(device), StartModel.of(model, recipe, plans)
    )
    times: list[float] = []
    for number, batches in enumerate(itertools.islice(_batches(feed, recipe), 1 + MAX_TIMED)):
        started = time.perf_counter()
        losses, _ = step(batches, Moment(0, number, 1.0))
        float(losses["loss"])  # which waits for a GPU
        if number > 0:
            times.append(time.perf_counter() - started)
        if sum(times) > ENOUGH_S:
            break
    return sum(times) / len(times)


def _batches(feed: TrainData, recipe: Recipe) -> Iterator[dict[str, Batch]]:
    """Those of the first epochs, one after the other."""
    for epoch in itertools.count():
        yield from paired_batches(feed, epoch, recipe.objective.uses_source)


def _build(recipe: Recipe, data: OpenData) -> TaskModel:
    return build_model(recipe.model, data.classes, image_size=recipe.data.image_size, seed=recipe.seed)
