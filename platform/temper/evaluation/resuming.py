"""Whether the chunks that a killed evaluation left are what the model would still give.

Weights and files of code can be compared, but a model from elsewhere may come as an object, or depend on more
than them. So it is asked again: on and around a few images, for the clean answers of every image in those
chunks, and for its answers to the adversarial examples that they keep.
"""

import logging

import torch
from torch import Tensor, nn

from temper.attacks import attack_mode
from temper.batches import as_floats
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import answer_clean
from temper.evaluation.chunk_outcome import CascadeOutcome, CleanOutcome
from temper.evaluation.counted_model import CountedModel
from temper.evaluation.plan import EvaluationPlan
from temper.evaluation.store import ChunkStore
from temper.records import ModelSource

NUM_ASKED = 16
"""Images whose gradients, and surroundings, are compared."""
RADII = (1 / 255, 4 / 255, 16 / 255, 64 / 255)
"""How far from them: a model may differ on perturbed images alone."""
ROUNDING = 1e-3
"""Share of the largest value by which another machine may answer otherwise."""

logger = logging.getLogger(__name__)


def drop_outdated(
    store: ChunkStore,
    model: nn.Module,
    data: LabelledImages,
    plan: EvaluationPlan,
    device: torch.device,
    source: ModelSource,
) -> None:
    """Empty ``store`` unless ``model``, which is from ``source``, answers as the one whose chunks it holds.

    A model that never answers alike twice cannot be known again, and is evaluated afresh.

    Raises:
        ModelError: the model does not answer with logits.
    """
    with attack_mode(model):
        behaviour = ask(model, data, device)
        indices = store.indices()
        former = store.read_behaviour()
        holds = (
            former is not None
            and are_alike(former, behaviour)
            and _hold(store, model, data, plan, device, source)
        )
    if indices and not holds:
        logger.warning(
            "%s: the model or its images have changed since this evaluation was interrupted; its "
            "%s finished chunks are discarded",
            store.folder.parent.parent,
            len(indices),
        )
        store.drop(indices)
    store.write_behaviour(behaviour)


def ask(model: nn.Module, data: LabelledImages, device: torch.device) -> dict[str, Tensor]:
    """Logits of at most ``NUM_ASKED`` images spread over ``data``, the gradients of their largest, and logits

    away from the images: as far as each of ``RADII`` in a random direction, and in that of the gradients.
    """
    counted = CountedModel(model).eval()
    chosen = torch.linspace(0, len(data.labels) - 1, min(NUM_ASKED, len(data.labels))).round().long()
    images = as_floats(data.images[chosen], device).requires_grad_()
    with torch.enable_grad():
        logits = counted(images)
        (gradients,) = torch.autograd.grad(logits.amax(1).sum(), images)
    found = {"logits": logits.detach(), "gradients": gradients}
    noise = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, direction in (("noise", noise.to(images)), ("ascent", gradients.sign())):
        for radius in RADII:
            with torch.no_grad():
                found[f"{name} {radius:.3f}"] = counted((images + radius * direction).clamp(0, 1))
    return {name: tensor.float().cpu().contiguous() for name, tensor in found.items()}


def are_alike(these: dict[str, Tensor], those: dict[str, Tensor]) -> bool:
    """Whether tensors of the same names are equal but for rounding."""
    return these.keys() == those.keys() and all(_is_near(these[name], those[name]) for name in these)


def _hold(
    store: ChunkStore,
    model: nn.Module,
    data: LabelledImages,
    plan: EvaluationPlan,
    device: torch.device,
    source: ModelSource,
) -> bool:
    counted = CountedModel(model).eval()
    parts = list(plan.chunks(len(data.labels)))
    for index in store.indices():
        found = store.read(index)
        if found is None:
            continue
        if [one.model for one in found.sources] != [source] or index >= len(parts):
            return False
        if len(found.clean.labels) != len(data.labels[parts[index]]):
            return False
        portion = LabelledImages(data.images[parts[index]], data.labels[parts[index]])
        now = answer_clean(counted, portion, plan.batch_size, device)
        same = torch.equal(now.labels, found.clean.labels) and torch.equal(now.finite, found.clean.finite)
        if not (same and _is_near(now.logits, found.clean.logits)):
            return False
        if not all(_still_fooled(counted, found.clean, one, device) for one in found.cascades):
            return False
    return True


@torch.no_grad()
def _still_fooled(
    model: CountedModel, clean: CleanOutcome, cascade: CascadeOutcome, device: torch.device
) -> bool:
    """Whether ``model`` answers to the kept adversarial examples as when they were found."""
    fell = clean.correct & ~cascade.standing & cascade.kept
    if not fell.any():
        return True
    places = cascade.kept.long().cumsum(0) - 1
    logits, finite = model.answer(cascade.adversarial[places[fell]].to(device))
    is_told = finite.cpu() & (cascade.prediction[fell] >= 0)
    return _is_near(logits.float().cpu()[is_told], cascade.worst_logits[fell][is_told])


def _is_near(mine: Tensor, theirs: Tensor) -> bool:
    if mine.shape != theirs.shape:
        return False
    mine, theirs = (torch.nan_to_num(one, nan=0.0, posinf=0.0, neginf=0.0) for one in (mine, theirs))
    largest = max(float(mine.abs().max()), float(theirs.abs().max())) if mine.numel() else 0.0
    return bool(torch.allclose(mine, theirs, rtol=0, atol=ROUNDING * largest))
