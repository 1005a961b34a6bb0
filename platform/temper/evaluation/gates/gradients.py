"""A gate on the gradients themselves."""

from torch import Tensor

from temper.attacks.base import AttackLoss, cross_entropy_of, image_gradient
from temper.evaluation.gates.base import Scene, doubt, gate
from temper.evaluation.threats import margins
from temper.records import GateRecord

NUM_IMAGES = 64

MAX_WITHOUT_GRADIENT = 0.05
"""Share of images that may have no gradient: honest models have none such, but an odd dead image blocks
nothing."""

MAX_ZERO_PIXELS = 0.999
"""A gradient that is zero in more of its values shows no way."""


def zero_gradients(scene: Scene) -> GateRecord:
    """The margin has a gradient; the cross-entropy may lose its own where a model is very sure."""
    name = "zero gradients"
    images, labels = scene.pixels(
        scene.some(scene.found.clean.correct, min(NUM_IMAGES, scene.batching.batch_size))
    )
    if len(labels) == 0:
        return gate(name, True, "no image is classified correctly, so none was checked", "")
    model = scene.held.folded

    margin = AttackLoss(model, lambda logits, rows: margins(logits, labels[rows]).sum())
    share, of_ce = (_share_without(loss, images) for loss in (margin, cross_entropy_of(model, labels)))
    seen = (
        f"{100 * share:.0f} % of {len(labels)} images have no gradient of the margin, "
        f"{100 * of_ce:.0f} % none of the cross-entropy"
    )
    return doubt(
        scene,
        name,
        share <= MAX_WITHOUT_GRADIENT,
        seen,
        ": gradients are cut off. Look in forward for rounding, clamping, saturation, detach() "
        "or NumPy, and attack the model without it, or a differentiable stand-in (BPDA, arXiv:1802.00420)",
    )


def _share_without(loss: AttackLoss, images: Tensor) -> float:
    gradient = image_gradient(loss, images).flatten(1)
    zeros = ((gradient == 0) | ~gradient.isfinite()).double().mean(1)
    return float((zeros > MAX_ZERO_PIXELS).double().mean())
