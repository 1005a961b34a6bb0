"""A gate on the input: temper's images are in [0,1], and the model itself normalises them."""

import torch
from torch import Tensor, nn

from temper.evaluation.gates.base import Scene, gate
from temper.evaluation.metrics import auroc, balanced
from temper.models import TaskModel
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
    if _normalizes(scene.held.model.model):
        return gate(name, True, "a temper model, which normalises images itself and was trained that way", "")
    chosen = scene.some(torch.ones_like(scene.main.standing), NUM_IMAGES)
    labels, plain = scene.data.labels[chosen], scene.found.clean.correct[chosen]
    accuracy = float(plain.double().mean())
    if accuracy > 1 - MIN_GAIN:
        return gate(name, True, f"accuracy on images in [0,1] is {100 * accuracy:.1f} %", "")
    found: dict[float, GateRecord] = {}
    for how, code in _ways().items():
        logits, finite = _answers(scene, chosen, how)
        other = finite & (logits.argmax(1) == labels)
        gain = float(other.double().mean()) - accuracy
        is_better = gain > MIN_GAIN and _is_better(other, plain, labels, logits.shape[1])
        if is_better and _ranks_as_well(logits, scene.found.clean.logits[chosen], labels):
            detail = (
                f"accuracy is {100 * accuracy:.1f} % on images in [0,1], but {100 * (accuracy + gain):.1f} % "
                f"when they are {how}: the model expects that to be done outside. Attacks, and eps, need "
                f"images in [0,1]: put it into forward, {code}"
            )
            found[gain] = GateRecord(name=name, passed=False, detail=detail)
    return found[max(found)] if found else gate(name, True, "images in [0,1] suit the model best", "")


def _is_better(other: Tensor, plain: Tensor, labels: Tensor, num_classes: int) -> bool:
    """Whether ``other`` (N,) bool beats ``plain`` in balanced accuracy, and beyond chance.

    It has to beat one class for all too: a model whose classes are in another order gains by giving that.
    """
    accuracy = balanced(other, labels, num_classes)
    gain = accuracy - balanced(plain, labels, num_classes)
    p = mcnemar(int((other & ~plain).sum()), int((plain & ~other).sum())).exact
    return gain > MIN_GAIN and p < MAX_P and accuracy > 1 / len(labels.unique()) + MIN_GAIN  # type: ignore[no-untyped-call]


def _ranks_as_well(other: Tensor, plain: Tensor, labels: Tensor) -> bool:
    """Whether the area under the ROC curves of logits ``other`` (N,C) is no smaller than that of ``plain``.

    More contrast moves a poor model across its thresholds, and so up in both accuracies, while its logits
    tell the classes apart worse than before. A model whose scale it is tells them apart better.
    """
    classes, numbers = labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    areas = [auroc(logits[:, classes], numbers) or 0.0 for logits in (plain, other)]
    return len(classes) > 1 and areas[1] >= areas[0]


def _normalizes(model: nn.Module) -> bool:
    """A model of temper is trained on images in [0,1] with its mean and deviation inside.

    Without these it may hold someone's weights that expect another range.
    """
    return isinstance(model, TaskModel) and bool((model.mean != 0).any() or (model.std != 1).any())


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
def _answers(scene: Scene, chosen: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """Logits (N,C) of the images in ``chosen`` once they are changed, and which rows are finite (N,)."""
    images, _ = scene.pixels(chosen)
    parts = []
    for start in range(0, len(images), scene.batching.batch_size):
        changed = _apply(how, images[start : start + scene.batching.batch_size])
        parts.append(scene.held.model.answer(changed))
    logits, finite = (torch.cat(same).cpu() for same in zip(*parts, strict=True))
    return logits.float(), finite
