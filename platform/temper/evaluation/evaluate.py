"""Evaluating one model on one set of images."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from temper.attacks import in_portions
from temper.batches import as_floats
from temper.data import stratified_subset
from temper.evaluation.cascade import LabelledImages, OnProgress
from temper.evaluation.chunk import evaluate_chunk
from temper.evaluation.chunk_outcome import ChunkOutcome, join
from temper.evaluation.counted_model import held_still
from temper.evaluation.fresh import Fresh, copies_of
from temper.evaluation.gates import run_gates
from temper.evaluation.plan import EvaluationPlan
from temper.evaluation.result import Evaluation, main_cascade, summarise
from temper.evaluation.store import ChunkStore
from temper.records import ModelSource, Proportion
from temper.statistics import wilson

NUM_KEPT = 48
"""Images whose adversarial examples are kept, for pictures and for checking a record."""

Relatives = Mapping[str, Callable[[Tensor], Tensor]]
"""Name -> images (B,3,H,W) in [0,1] to logits (B,C) of models whose adversarial examples may transfer."""


def evaluate_images(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    classes: Sequence[str],
    plan: EvaluationPlan,
    device: torch.device | str = "cpu",
    store: ChunkStore | None = None,
    relatives: Relatives | None = None,
    fresh: Fresh | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Clean and robust accuracy of ``model`` (images (B,3,H,W) in [0,1] to logits (B,C)).

    ``images`` uint8 (N,3,H,W), ``labels`` and ``rows`` int64 (N,). The model is frozen meanwhile and restored
    exactly. The same seed gives the same outcomes. Chunks that ``store`` has are not attacked again.
    ``fresh`` makes models that were never queried; by default, copies of ``model``.

    Raises:
        ModelError: the model does not answer with logits.
    """
    fresh = fresh or copies_of(model)
    data, kept = prepare(images, labels, plan)
    found = evaluate_chunks(model, data, kept, rows, plan, device, store=store, on_progress=on_progress)
    return conclude(
        model,
        data,
        rows,
        found,
        classes=classes,
        plan=plan,
        device=device,
        relatives=relatives,
        fresh=fresh,
    )


def evaluate_chunks(
    model: nn.Module,
    data: LabelledImages,
    kept: Tensor,
    rows: np.ndarray,
    plan: EvaluationPlan,
    device: torch.device | str,
    *,
    store: ChunkStore | None = None,
    source: ModelSource | None = None,
    on_progress: OnProgress | None = None,
) -> ChunkOutcome:
    """Attack ``data`` chunk by chunk; chunks that ``store`` has are not attacked again.

    ``kept`` (N,) bool: see ``prepare``. ``source`` is what each chunk is marked with.

    Raises:
        ModelError: the model does not answer with logits.
    """
    numbers, total = torch.from_numpy(rows.astype(np.int64)), len(data.labels)
    found: list[ChunkOutcome] = []
    for index, part in enumerate(plan.chunks(total)):
        one = store.read(index) if store is not None else None
        if one is None:
            portion = LabelledImages(data.images[part], data.labels[part])
            report = _within(on_progress, found, part, plan, total)
            one = evaluate_chunk(
                model, portion, numbers[part], kept[part], plan, index, torch.device(device), report
            )
            one = one.made_by(source) if source is not None else one
            if store is not None:
                store.write(index, one)
        found.append(one)
    return join(found)


def prepare(images: np.ndarray, labels: np.ndarray, plan: EvaluationPlan) -> tuple[LabelledImages, Tensor]:
    """The images as tensors, and (N,) bool: those whose adversarial examples are kept."""
    data = LabelledImages(
        torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))
    )
    kept = torch.zeros(len(labels), dtype=torch.bool)
    kept[torch.from_numpy(stratified_subset(labels, NUM_KEPT, plan.seed))] = True
    return data, kept


def conclude(
    model: nn.Module,
    data: LabelledImages,
    rows: np.ndarray,
    found: ChunkOutcome,
    *,
    classes: Sequence[str],
    plan: EvaluationPlan,
    device: torch.device | str = "cpu",
    relatives: Relatives | None = None,
    fresh: Fresh | None = None,
) -> Evaluation:
    """Run the gates, and put the numbers together. What the gates find counts."""
    started, device = time.perf_counter(), torch.device(device)
    few = as_floats(data.images[:8], device)
    with held_still(model, few) as held:
        gates = run_gates(held, data, found, plan, device, relatives or {}, fresh)
    evaluation = summarise(found, data.images, rows, classes, plan, gates)
    return replace(
        evaluation,
        seconds=evaluation.seconds + time.perf_counter() - started,
        num_forward=evaluation.num_forward + held.num_forward,
        num_backward=evaluation.num_backward + held.num_backward,
    )


def _within(
    on_progress: OnProgress | None,
    done: Sequence[ChunkOutcome],
    part: slice,
    plan: EvaluationPlan,
    total: int,
) -> OnProgress | None:
    """Progress of a chunk as progress of the whole."""
    if on_progress is None:
        return None
    standing = sum(int(main_cascade(one, plan).standing.sum()) for one in done)
    size = part.stop - part.start

    def report(member: str, attacked: int, survivors: int, robust: float) -> None:
        on_progress(member, part.start, total, (standing + robust * size) / part.stop)

    return report


@torch.no_grad()
def predict_logits(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Tensor:
    """What ``model`` answers to uint8 images (N,3,H,W), collected on the CPU as (N, ...)."""
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
        parts.append(in_portions(model, as_floats(batch, device)).cpu())
    return torch.cat(parts)


def accuracy_of(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Proportion:
    """Clean accuracy on uint8 images (N,3,H,W) and labels (N,)."""
    prediction = predict_logits(model, images, batch_size=batch_size, device=device).argmax(1).numpy()
    return wilson(int((prediction == labels).sum()), len(labels))
