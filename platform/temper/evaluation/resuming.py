"""Whether the chunks that a killed evaluation left are what the model would still give.

Weights can be compared, but not the code of a model from elsewhere. So it is asked again: for gradients of a
few images, and for the clean answers of every image in those chunks.
"""

import logging

import torch
from torch import Tensor, nn

from temper.attacks import attack_mode
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import answer_clean
from temper.evaluation.counted_model import CountedModel
from temper.evaluation.plan import EvaluationPlan
from temper.evaluation.store import ChunkStore

NUM_ASKED = 16
"""Images whose gradients are compared."""
ROUNDING = 1e-3
"""Share of the largest value by which another machine may answer otherwise."""

logger = logging.getLogger(__name__)


def drop_outdated(
    store: ChunkStore, model: nn.Module, data: LabelledImages, plan: EvaluationPlan, device: torch.device
) -> None:
    """Empty ``store`` unless ``model`` answers as the one whose chunks it holds.

    A model that never answers alike twice cannot be known again, and is evaluated afresh.

    Raises:
        ModelError: the model does not answer with logits.
    """
    with attack_mode(model):
        behaviour = ask(model, data, device)
        indices = store.indices()
        former = store.read_behaviour()
        holds = (
            former is not None and are_alike(former, behaviour) and _hold(store, model, data, plan, device)
        )
    if indices and not holds:
        logger.warning(
            "%s: the model, or its images, answer otherwise than when this evaluation was interrupted; its "
            "%s finished chunks are not taken up",
            store.folder.parent.parent,
            len(indices),
        )
        store.drop(indices)
    store.write_behaviour(behaviour)


def ask(model: nn.Module, data: LabelledImages, device: torch.device) -> dict[str, Tensor]:
    """Logits of at most ``NUM_ASKED`` images spread over ``data``, and the gradients of their largest."""
    counted = CountedModel(model).eval()
    chosen = torch.linspace(0, len(data.labels) - 1, min(NUM_ASKED, len(data.labels))).round().long()
    images = (data.images[chosen].to(device).float() / 255).requires_grad_()
    with torch.enable_grad():
        logits = counted(images)
        (gradients,) = torch.autograd.grad(logits.amax(1).sum(), images)
    return {"logits": logits.detach().float().cpu(), "gradients": gradients.float().cpu().contiguous()}


def are_alike(these: dict[str, Tensor], those: dict[str, Tensor]) -> bool:
    """Whether tensors of the same names are equal but for rounding."""
    return these.keys() == those.keys() and all(_is_near(these[name], those[name]) for name in these)


def _hold(
    store: ChunkStore, model: nn.Module, data: LabelledImages, plan: EvaluationPlan, device: torch.device
) -> bool:
    parts = list(plan.chunks(len(data.labels)))
    for index in store.indices():
        found = store.read(index)
        if found is None:
            continue
        if index >= len(parts) or len(found.clean.labels) != len(data.labels[parts[index]]):
            return False
        portion = LabelledImages(data.images[parts[index]], data.labels[parts[index]])
        now = answer_clean(CountedModel(model).eval(), portion, plan.batch_size, device)
        same = torch.equal(now.labels, found.clean.labels) and torch.equal(now.finite, found.clean.finite)
        if not (same and _is_near(now.logits, found.clean.logits)):
            return False
    return True


def _is_near(mine: Tensor, theirs: Tensor) -> bool:
    if mine.shape != theirs.shape:
        return False
    mine, theirs = (torch.nan_to_num(one, nan=0.0, posinf=0.0, neginf=0.0) for one in (mine, theirs))
    largest = max(float(mine.abs().max()), float(theirs.abs().max())) if mine.numel() else 0.0
    return bool(torch.allclose(mine, theirs, rtol=0, atol=ROUNDING * largest))
