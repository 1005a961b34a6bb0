"""The linear probe: a head at its optimum on frozen features, of whichever workers compute them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from temper.batches import Batch, as_floats
from temper.data import Images, stratified_subset
from temper.errors import CheckpointError, TrainingError
from temper.models import BinaryHead, Classifier, TaskModel, load_head
from temper.recipe import Recipe
from temper.records import RunFolder, write_atomic
from temper.seeds import derive_seed
from temper.storage import fetched, named
from temper.training.data import TrainData
from temper.training.linear_head import Examples, LinearHead, solve_head
from temper.training.saving import check_best
from temper.training.state import Passes, TrainState, read_state
from temper.training.worker import Worker

MAX_IMAGES = 20_000
"""Of a split that a head is fitted to or chosen by; of larger ones a stratified subset serves."""
MAX_BYTES = 2 * 2**30
"""Of the features of a split."""
BATCH_SIZE = 256


@dataclass(frozen=True)
class Probe:
    """The target head of a probe's run, with what that run measured and took."""

    head: Classifier
    state: TrainState

    @classmethod
    def of(cls, folder: str) -> Self:
        """Read it from a finished run.

        Raises:
            CheckpointError: none here.
        """
        run = RunFolder(fetched(Path(folder), names=frozenset({"model.safetensors", "state.json"})))
        state = read_state(run.checkpoint)
        if not state.is_settled:
            raise CheckpointError(f"{named(Path(folder))}: the linear probe is not finished; run it again")
        check_best(run, state)
        return cls(read_head(run.checkpoint / "model.safetensors"), state)

    @property
    def metrics(self) -> dict[str, float]:
        return self.state.best_metrics


def put_head(model: TaskModel, task: str, head: Classifier) -> None:
    """Make ``head`` that of ``task``.

    Raises:
        CheckpointError: it is of other classes or another backbone.
    """
    if not load_head(model.heads[task], head):
        raise CheckpointError(
            f"the linear probe's head has the shape {tuple(head.weight.shape)}, which does not fit the "
            f"{task} head of this model; remove the folder of the probe and run the command again"
        )


def head_of(model: TaskModel) -> Classifier:
    """The target head, not to be changed."""
    linear = _linear_of(model.heads["target"])
    return Classifier(linear.weight.detach().clone(), linear.bias.detach().clone())


def save_head(run: RunFolder, head: Classifier) -> None:
    """Keep the probe's head beside the checkpoint."""
    tensors = {"heads.target.weight": head.weight, "heads.target.bias": head.bias}
    write_atomic(run.probe_head, save({name: value.cpu().contiguous() for name, value in tensors.items()}))


def read_head(path: Path) -> Classifier:
    """The target head in a file of weights.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        tensors = load_file(path)
        prefix = "heads.target" if "heads.target.weight" in tensors else "heads.target.linear"
        return Classifier(tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"])
    except (OSError, SafetensorError, KeyError) as problem:
        raise CheckpointError(f"{path}: no head of a linear probe here ({problem})") from None


@dataclass(frozen=True)
class Solved:
    """What solving heads came to."""

    metrics: dict[str, float]
    """``train/loss`` and its parts, and the chosen ``probe/strength``."""
    passes: Passes


def solve_heads(
    recipe: Recipe, model: TaskModel, feed: TrainData, worker: Worker, known: Probe | None = None
) -> Solved:
    """Put each head that trains at its optimum on the features of ``model``; of the target that of ``known``.

    The features are those of the images as they are: neither augmented nor mixed. All ranks end with the same
    heads, and with those of any other number of ranks, up to rounding. Of the source term only replayed
    images have an optimum of their own: what else the source head is to do, it does as it starts.

    Raises:
        TrainingError: features that are not finite.
    """
    worker.share_buffers(model)
    metrics: dict[str, float] = {}
    passes = Passes()
    if known is None:
        head, passes = _solve(recipe, model, feed, worker, "target")
        metrics = {"train/target/loss": head.loss, "probe/strength": head.strength}
    else:
        put_head(model, "target", known.head)
        kept = ("train/target/loss", "probe/strength")
        metrics = {name: known.metrics[name] for name in kept if name in known.metrics}
    metrics["train/loss"] = metrics.get("train/target/loss", float("nan"))
    if feed.source is not None:
        head, cost = _solve(recipe, model, feed, worker, "source")
        passes += cost
        metrics["train/source/loss"] = head.loss
        metrics["train/loss"] += recipe.objective.alpha_at(0.0) * head.loss
    return Solved(metrics, passes)


def _solve(
    recipe: Recipe, model: TaskModel, feed: TrainData, worker: Worker, task: str
) -> tuple[LinearHead, Passes]:
    batches = feed.target if task == "target" else feed.source
    assert batches is not None
    linear, seed = _linear_of(model.heads[task]), derive_seed(recipe.seed, "probe", task)
    limit = min(MAX_IMAGES, MAX_BYTES // (4 * linear.in_features))
    train = _examples(model, worker, batches.once(limit, seed))
    val = _examples(model, worker, _share_of(feed.val[task], limit, seed, worker))
    is_balanced = task == "target" and recipe.is_balanced
    shape = (len(feed.classes[task]), linear.in_features + 1)
    solution, said = np.zeros(shape), np.zeros(2)
    if worker.is_chief:
        head = solve_head(train, val, shape[0], is_balanced=is_balanced)
        solution, said = np.column_stack([head.weight, head.bias]), np.array([head.strength, head.loss])
    # Only the chief has solved it, so the sums are its solution.
    whole = worker.sum(torch.from_numpy(solution))
    strength, loss = worker.sum(torch.from_numpy(said)).tolist()
    put_head(model, task, Classifier(whole[:, :-1], whole[:, -1]))
    head = LinearHead(whole[:, :-1].numpy(), whole[:, -1].numpy(), strength, loss)
    return head, Passes(forward=len(train.labels) + len(val.labels))


def _share_of(images: Images, limit: int, seed: int, worker: Worker) -> Iterator[Batch]:
    """The part of this rank in (a subset of) the images, without a copy of all."""
    mine = stratified_subset(images.labels, limit, seed)[worker.rank :: worker.world_size]
    for start in range(0, len(mine), BATCH_SIZE):
        own = mine[start : start + BATCH_SIZE]
        parts = (images.images, images.labels, images.rows)
        pixels, labels, rows = (torch.from_numpy(part[own]) for part in parts)
        yield Batch(pixels, labels, rows)


@torch.no_grad()
def _examples(model: TaskModel, worker: Worker, batches: Iterable[Batch]) -> Examples:
    """The features of every rank's batches, in the order of their rows."""
    model.eval()
    width = _linear_of(model.heads["target"]).in_features
    features, labels = [torch.zeros(0, width)], [torch.zeros(0, 2, dtype=torch.int64)]
    for batch in batches:
        images = as_floats(batch.images, worker.device)
        features.append(model.features(images).float().cpu())
        labels.append(torch.stack([batch.rows, batch.labels], dim=1))
    whole = _together(worker, {"features": torch.cat(features), "labels": torch.cat(labels)})
    order = torch.argsort(whole["labels"][:, 0])
    found = Examples(whole["features"][order].numpy(), whole["labels"][order, 1].numpy())
    if not np.isfinite(found.features).all():
        raise TrainingError(
            "the features of the start are not finite, so no head can be fitted to them; "
            "take weights that fit model.backbone and data.image_size"
        )
    return found


def _together(worker: Worker, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all ranks, one rank after the other."""
    if worker.world_size == 1:
        return dict(own)
    found = {}
    for name, rows in own.items():
        counts = torch.zeros(worker.world_size, dtype=torch.int64)
        counts[worker.rank] = len(rows)
        counts = worker.sum(counts)
        start = int(counts[: worker.rank].sum())
        whole = torch.zeros(int(counts.sum()), *rows.shape[1:], dtype=rows.dtype)
        whole[start : start + len(rows)] = rows
        found[name] = worker.sum(whole)
    return found


def _linear_of(head: nn.Module) -> nn.Linear:
    linear = head.linear if isinstance(head, BinaryHead) else head
    assert isinstance(linear, nn.Linear)
    return linear
