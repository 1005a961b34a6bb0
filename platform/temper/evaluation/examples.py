"""Adversarial examples to show, and the model's confidence in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from temper.batches import as_floats
from temper.evaluation.adversarial import Adversarial
from temper.evaluation.counted_model import held_still


@dataclass(frozen=True)
class Answer:
    """A model's answer to an image."""

    class_name: str | None
    """``None`` where it had no finite answer."""
    confidence: float
    """Softmax of the class, 0..1."""


@dataclass(frozen=True)
class Example:
    """One image before and after an attack, (3,H,W) float32 in [0,1]."""

    label: str
    clean: np.ndarray
    adversarial: np.ndarray
    before: Answer
    after: Answer

    @property
    def is_grey(self) -> bool:
        """The clean image is the same in all channels."""
        return bool((self.clean == self.clean[:1]).all())

    @property
    def is_changed_alike(self) -> bool:
        """The channels were changed alike, up to rounding."""
        return bool(np.allclose(self.perturbation, self.perturbation[:1], rtol=0, atol=1e-6))

    @property
    def perturbation(self) -> np.ndarray:
        """(3,H,W) in -1..1."""
        difference: np.ndarray = self.adversarial - self.clean
        return difference


def choose_examples(
    model: nn.Module,
    adversarial: Adversarial,
    classes: Sequence[str],
    robust_acc: Mapping[str, float],
    *,
    max_examples: int,
    device: torch.device,
) -> list[Example]:
    """At most ``max_examples``, of the classes with the lowest ``robust_acc`` first.

    Each class has one before any has two. The same evaluation gives the same examples.
    """
    ranks = [robust_acc.get(name, 1.0) for name in classes]
    chosen = worst_first(adversarial.labels, ranks, max_examples)
    if not len(chosen):
        return []
    places = torch.from_numpy(chosen)
    clean, perturbed = as_floats(adversarial.clean[places]), adversarial.images[places]
    with held_still(model, clean[:8].to(device)) as held, torch.no_grad():
        answers = [_answers(*held.model.answer(images.to(device)), classes) for images in (clean, perturbed)]
    return [
        Example(classes[adversarial.labels[place]], clean[index].numpy(), perturbed[index].numpy(), *both)
        for index, (place, both) in enumerate(zip(chosen, zip(*answers, strict=True), strict=True))
    ]


def worst_first(labels: np.ndarray, robust_acc: Sequence[float], size: int) -> np.ndarray:
    """Positions of at most ``size`` of ``labels`` (K,), classes of low ``robust_acc`` (C,) first."""
    seen: dict[int, int] = {}
    keys = []
    for place, label in enumerate(labels.tolist()):
        turn = seen[label] = seen.get(label, -1) + 1
        keys.append((turn, robust_acc[label], label, place))
    chosen = sorted(keys)[:size]
    return np.array([place for *_, place in sorted(chosen, key=lambda key: key[1:])], dtype=np.int64)


def _answers(logits: Tensor, finite: Tensor, classes: Sequence[str]) -> list[Answer]:
    confidence, prediction = logits.double().softmax(1).max(1)
    return [
        Answer(classes[label] if is_finite else None, share)
        for label, share, is_finite in zip(
            prediction.tolist(), confidence.tolist(), finite.tolist(), strict=True
        )
    ]
