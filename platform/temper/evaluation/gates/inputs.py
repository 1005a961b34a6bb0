"""A gate on the input: temper's images are in [0,1], and the model itself normalises them."""

import torch
from torch import Tensor

from temper.evaluation.gates.base import Scene, gate
from temper.evaluation.metrics import balanced
from temper.records import GateRecord
from temper.statistics import mcnemar

NUM_IMAGES = 256

MAX_P = 0.01
MIN_GAIN = 0.05
"""Another input must be better beyond chance (McNemar's exact test, 1947) and by 5 points, in accuracy and
in balanced accuracy: a poor model that always answers the largest class gains in the first alone."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalization_inside(scene: Scene) -> GateRecord:
    """Images as they are must suit the model best."""
    name = "normalization inside"
    chosen = scene.some(torch.ones_like(scene.main.standing), NUM_IMAGES)
    labels, plain = scene.data.labels[chosen], scene.found.clean.correct[chosen]
    accuracy = float(plain.double().mean())
    if accuracy > 1 - MIN_GAIN:
        return gate(name, True, f"accuracy on images in [0,1] is {100 * accuracy:.1f} %", "")
    found: dict[float, GateRecord] = {}
    for how, code in _ways().items():
        other = _correct(scene, chosen, how)
        gain = float(other.double().mean()) - accuracy
        num_classes = scene.found.clean.logits.shape[1]
        even_gain = balanced(other, labels, num_classes) - balanced(plain, labels, num_classes)
        p = mcnemar(int((other & ~plain).sum()), int((plain & ~other).sum())).exact
        if min(gain, even_gain) > MIN_GAIN and p < MAX_P:
            detail = (
                f"accuracy is {100 * accuracy:.1f} % on images in [0,1], but {100 * (accuracy + gain):.1f} % "
                f"when they are {how}: the model expects that to be done outside. Attacks, and eps, need "
                f"images in [0,1]: put it into forward, {code}"
            )
            found[gain] = GateRecord(name=name, passed=False, detail=detail)
    return found[max(found)] if found else gate(name, True, "images in [0,1] suit the model best", "")


def _ways() -> dict[str, str]:
    mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    return {
        "normalised by ImageNet's mean and deviation": f"(images - mean) / std with mean {mean}, std {std}",
        "scaled to [-1,1]": "images * 2 - 1",
        "scaled to [0,255]": "images * 255",
    }


def _apply(how: str, images: Tensor) -> Tensor:
    if how == "scaled to [-1,1]":
        return images * 2 - 1
    if how == "scaled to [0,255]":
        return images * 255
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


@torch.no_grad()
def _correct(scene: Scene, chosen: Tensor, how: str) -> Tensor:
    images, labels = scene.pixels(chosen)
    parts = []
    for start in range(0, len(images), scene.batching.batch_size):
        rows = slice(start, start + scene.batching.batch_size)
        logits, finite = scene.held.model.answer(_apply(how, images[rows]))
        parts.append((finite & (logits.argmax(1) == labels[rows])).cpu())
    return torch.cat(parts)
