"""Gates on the model itself."""

import torch
from torch import Tensor

from temper.evaluation.counted_model import CountedModel
from temper.evaluation.gates.base import gate
from temper.records import GateRecord

NUM_ALONE = 4
"""Images that are shown to the model one by one."""

SAME_ANSWER = 0.01
"""Relative to the largest logit: by how much an answer may depend on the batch. Fast kernels differ by
1e-3 (TF32), statistics of the batch by far more."""

MAX_AT_CEILING = 0.25
"""Share of images whose largest logit is exactly the same number. Of honest logits no two are equal; in
half precision a few may be."""


def check_model(model: CountedModel, images: Tensor) -> list[GateRecord]:
    """Gates on a few float images (B,3,H,W) in [0,1]."""
    with torch.no_grad():
        first, second = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images[:NUM_ALONE]])
    training = [name for name, module in model.named_modules() if module.training]
    tolerance = SAME_ANSWER * float(first.abs().max())
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
            "one image at a time",
            torch.allclose(first[: len(alone)], alone, rtol=0, atol=tolerance),
            "an image's logits do not depend on the others of its batch",
            "an image alone gets other logits than in a batch; use running statistics in BatchNorm",
        ),
        *_check_logits(first),
    ]


def _check_logits(outputs: Tensor) -> list[GateRecord]:
    """Gates on ``outputs`` (B,C): whether gradients pass through them."""
    scale = "log-probabilities, which serve as logits" if _are_logs(outputs) else "logits"
    at_ceiling = _share_at_ceiling(outputs)
    return [
        gate(
            "logits",
            not _are_probabilities(outputs),
            f"outputs are {scale}",
            "outputs look like probabilities, which starve gradients; return the logits before softmax",
        ),
        gate(
            "logits not cut off",
            at_ceiling <= MAX_AT_CEILING,
            "the largest logits differ from image to image",
            f"the largest logit of {100 * at_ceiling:.0f} % of the images is exactly the same "
            "number: they are clamped or saturated, which stops gradients; return them as they were before",
        ),
    ]


def _are_probabilities(outputs: Tensor) -> bool:
    sums = outputs.sum(1)
    return bool((outputs >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-4))


def _are_logs(outputs: Tensor) -> bool:
    sums = outputs.logsumexp(1)
    return torch.allclose(sums, torch.zeros_like(sums), atol=1e-4)


def _share_at_ceiling(outputs: Tensor) -> float:
    """Of the images whose largest logit is the largest of all; 0 where that is one image alone."""
    largest = outputs.amax(1)
    count = int((largest == largest.max()).sum())
    return count / len(outputs) if count > 1 else 0.0
