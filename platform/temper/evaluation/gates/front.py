"""A gate on what a model does to its images before its first layer: attacks that bypass it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from temper.attacks import in_colour
from temper.evaluation.counted_model import CountedModel
from temper.evaluation.gates.attackers import RoundTheFront, Transfer
from temper.evaluation.gates.base import Scene, gate, judge
from temper.records import GateRecord

SCALE_ALONE = 1e-6
"""Share of the variance of what the first layer sees that a factor and an offset per channel may leave
unexplained: with less, nothing stands in front but a normalization (TF32 leaves 1e-7)."""

SHAKEN = 0.05
"""By how much pixels are changed before that is looked at: rounding to 8 bits leaves clean ones alone."""

PART = 0.5
"""Of the passes of the evaluation so far, for each of the two attacks. Few models have a front, and what it
hides may be a few points, which 64 images would not show."""

STEPS = 40

NUM_SHOWN = 32


@dataclass(frozen=True)
class Front:
    """Where images end in a model and features begin, and how what arrives there follows from the images."""

    call: int
    """Number of operations that make features of images in one pass. The last one counts: in the others the
    model may ask itself where to step."""
    factor: Tensor
    offset: Tensor
    """(C,1,1): the nearest that a factor and an offset per channel come to what arrives, in the call where
    they come nearest: an earlier one may get the images as they are."""
    left: float
    """Share 0..1 of the variance of what arrives in the last call that a factor and an offset of its own
    leave unexplained."""

    @classmethod
    def of(cls, model: nn.Module, images: Tensor) -> "Front | None":
        """That of ``model`` on float ``images`` (B,C,H,W); ``None`` if no operation of torch sees images."""
        with torch.no_grad(), FirstLayers(images) as layers:
            model(images)
        if not layers.shown:
            return None
        scales = [_nearest_scale(_resized(images, shown), shown) for shown in layers.shown]
        factor, offset, _ = min(scales, key=lambda scale: scale[2])
        return cls(len(scales), factor, offset, scales[-1][2])


class FirstLayers(TorchFunctionMode):
    """Watches every operation of torch that makes features out of something of the images' shape.

    It sees functions as well as modules, but nothing within TorchScript or outside torch.
    """

    def __init__(self, images: Tensor, replace: Callable[[int, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.images, self.replace = images, replace
        self.shown: list[Tensor] = []
        """What each of these operations got, in order."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        options = options or {}
        answer = function(*arguments, **options)
        if not (arguments and _is_like(arguments[0], self.images) and self._is_features(answer)):
            return answer
        self.shown.append(arguments[0].detach())
        if self.replace is None:
            return answer
        replaced = self.replace(len(self.shown), arguments[0])
        return answer if replaced is arguments[0] else function(replaced, *arguments[1:], **options)

    def _is_features(self, answer: Any) -> bool:
        if not isinstance(answer, Tensor) or answer.dim() < 2 or _is_like(answer, self.images):
            return False
        return len(answer) == len(self.images)


class WithoutFront(nn.Module):
    """``model`` with its front taken as a mere scale: going back alone (BPDA), or altogether (``off``).

    Athalye et al. 2018, arXiv:1802.00420.
    """

    def __init__(self, model: nn.Module, front: Front, *, off: bool) -> None:
        super().__init__()
        self.model, self.front, self.off = model, front, off

    def forward(self, images: Tensor) -> Tensor:
        def replace(call: int, shown: Tensor) -> Tensor:
            if call != self.front.call:
                return shown
            shown = shown.detach()
            scaled = self.front.factor * _resized(images, shown) + self.front.offset
            return scaled if self.off else scaled + (shown - scaled).detach()

        with FirstLayers(images, replace):
            logits: Tensor = self.model(images)
        return logits


def _is_like(value: Any, images: Tensor) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and value.shape[:2] == images.shape[:2]


def _resized(images: Tensor, shown: Tensor) -> Tensor:
    if images.shape == shown.shape:
        return images
    return F.interpolate(images, shown.shape[-2:], mode="bilinear", align_corners=False)


def _nearest_scale(images: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, float]:
    """Least squares, per channel; where the images do not vary, the factor is 1."""
    over, shown = (0, 2, 3), shown.to(images)
    mean, wanted = images.mean(over, keepdim=True), shown.mean(over, keepdim=True)
    varies = (images - mean).square().mean(over, keepdim=True)
    together = ((images - mean) * (shown - wanted)).mean(over, keepdim=True)
    factor = torch.where(varies > 0, together / varies.clamp_min(1e-12), 1.0)
    factor = torch.where(factor == 0, 1.0, factor)
    offset = wanted - factor * mean
    whole = (shown - wanted).square().sum()
    left = float((shown - factor * images - offset).square().sum() / whole) if whole > 0 else 0.0
    return factor[0], offset[0], left


def without_front(scene: Scene) -> GateRecord:
    """Attackers who bypass what stands before the first layer must find nothing more."""
    name = "without its front"
    standing = scene.main.standing
    if not standing.any():
        return gate(name, True, "no image is left standing, so there is nothing more to find", "")
    images, _ = scene.pixels(scene.some(torch.ones_like(standing), min(NUM_SHOWN, scene.batching.batch_size)))
    shaken = torch.empty_like(images).uniform_(-SHAKEN, SHAKEN, generator=scene.generator(name))
    model = scene.held.model.model
    front = Front.of(model, in_colour((images + shaken).clamp(0, 1)))
    if front is None:
        return gate(name, True, "no torch operation in the model sees images: nothing was tried", "")
    if front.left <= SCALE_ALONE:
        return gate(name, True, "only a scale comes before the first layer", "")
    chosen = scene.some(standing, scene.affordable(2 * STEPS, PART, most=len(standing)))
    num_standing = int(standing.sum())
    going_back = CountedModel(WithoutFront(model, front, off=False)).eval()
    taken_off = CountedModel(WithoutFront(model, front, off=True)).eval()
    members = (
        RoundTheFront.through(going_back, steps=STEPS),
        Transfer.through(taken_off, relative="the model without its front", steps=STEPS),
    )
    fallen = sum(int(scene.attack(scene.main, member, chosen).fooled.sum()) for member in members)
    for other in (going_back, taken_off):
        scene.count(other)
    return judge(
        name,
        fallen,
        int(chosen.sum()),
        num_standing,
        len(standing),
        "attacks that treat what comes before the first layer as a scale (BPDA), or skip it",
        "What the model does to its images hides their gradient; attack it by hand (arXiv:2002.08347)",
    )
