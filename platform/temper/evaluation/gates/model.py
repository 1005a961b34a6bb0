"""Gates on the model itself."""

import torch
from torch import Tensor

from temper.attacks import PGD
from temper.evaluation.gates.base import gate
from temper.evaluation.passes import CountedModel
from temper.records import GateRecord


def check_model(model: CountedModel, images: Tensor, labels: Tensor) -> list[GateRecord]:
    """Gates on a few float images (B,3,H,W) in [0,1] with ``labels`` (B,)."""
    with torch.no_grad():
        first, second = model(images), model(images)
    training = [name for name, module in model.named_modules() if module.training]
    still = PGD(norm="linf", eps=0.0, steps=2)
    unmoved = still.perturb(model, images, labels, torch.Generator(images.device))
    return [
        gate(
            "eval mode",
            not training,
            "every module is in eval mode",
            f"'{training[0] if training else ''}' stays in training mode; let eval() reach it",
        ),
        gate(
            "deterministic forward",
            torch.equal(first, second),
            "two passes over the same images give equal logits",
            "two passes over the same images differ; remove what is random in forward",
        ),
        gate(
            "logits",
            not _looks_like_probabilities(first),
            "outputs are logits",
            "outputs look like probabilities, which starve gradients; return logits",
        ),
        gate(
            "eps 0 is clean",
            torch.equal(unmoved, images),
            "an attack with eps 0 changes nothing",
            "an attack with eps 0 changed images; the bounds or the projection are wrong",
        ),
    ]


def _looks_like_probabilities(outputs: Tensor) -> bool:
    sums = outputs.sum(1)
    return bool((outputs >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-4))
