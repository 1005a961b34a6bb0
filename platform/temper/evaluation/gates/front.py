"""A gate on what a model does to its images before its first layer: attacks that go round it."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from temper.evaluation.counted_model import CountedModel
from temper.evaluation.gates.attackers import RoundTheFront, Transfer
from temper.evaluation.gates.base import Scene, gate, judge
from temper.records import GateRecord

SCALE_ALONE = 1e-6
"""Share of the variance of what the first layer sees that a factor and an offset per channel may leave
unexplained: with less, nothing stands in front but a normalization (TF32 leaves 1e-7)."""

SHAKEN = 0.05
"""By how much pixels are changed before that is looked at: rounding to 8 bits leaves clean ones alone."""

PART = 0.1
"""Of the passes of the evaluation so far, for each of the two attacks."""

STEPS = 40

NUM_SHOWN = 32


@dataclass(frozen=True)
class Front:
    """Where a model's first layer is, and how its input follows from the images."""

    layer: nn.Module
    call: int
    """Of the layer's calls in one pass, the one that counts: the last that sees images."""
    factor: Tensor
    offset: Tensor
    """(C,1,1): the nearest that a factor and an offset per channel come to what the layer sees."""
    left: float
    """Share 0..1 of the variance of what it sees that they do not explain."""

    @classmethod
    def of(cls, model: nn.Module, images: Tensor) -> "Front | None":
        """That of ``model`` on float ``images`` (B,C,H,W); ``None`` where no layer sees anything like it."""
        seen: list[tuple[nn.Module, Tensor]] = []

        def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if arguments and _is_like(arguments[0], images):
                seen.append((module, arguments[0].detach()))

        # The parts of a TorchScript module take no hooks.
        parts = [one for one in list(model.modules())[1:] if not isinstance(one, torch.jit.ScriptModule)]
        handles = [module.register_forward_pre_hook(note) for module in parts]
        try:
            with torch.no_grad():
                model(images)
        finally:
            for handle in handles:
                handle.remove()
        if not seen:
            return None
        layer, shown = seen[-1]
        call = sum(1 for module, _ in seen if module is layer)
        return cls(layer, call, *_nearest_scale(_resized(images, shown), shown))


class WithoutFront(nn.Module):
    """``model`` with its front taken as a mere scale: going back alone (BPDA), or altogether (``off``).

    Athalye et al. 2018, arXiv:1802.00420.
    """

    def __init__(self, model: nn.Module, front: Front, *, off: bool) -> None:
        super().__init__()
        self.model, self.front, self.off = model, front, off

    def forward(self, images: Tensor) -> Tensor:
        calls = 0

        def replace(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            nonlocal calls
            if not (arguments and _is_like(arguments[0], images)):
                return None
            calls += 1
            if calls != self.front.call:
                return None
            shown = arguments[0].detach()
            scaled = self.front.factor * _resized(images, shown) + self.front.offset
            straight = scaled if self.off else scaled + (shown - scaled).detach()
            return straight, *arguments[1:]

        handle = self.front.layer.register_forward_pre_hook(replace)
        try:
            logits: Tensor = self.model(images)
        finally:
            handle.remove()
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
    """What stands before the first layer may be gone round by whoever knows it, and nothing more falls."""
    name = "without its front"
    standing = scene.main.standing
    if not standing.any():
        return gate(name, True, "no image is left standing, so there is nothing more to find", "")
    images, _ = scene.pixels(scene.some(torch.ones_like(standing), min(NUM_SHOWN, scene.batching.batch_size)))
    shaken = torch.empty_like(images).uniform_(-SHAKEN, SHAKEN, generator=scene.generator(name))
    model = scene.held.model.model
    front = Front.of(model, (images + shaken).clamp(0, 1))
    if front is None:
        return gate(name, True, "no part of the model that takes hooks sees images: nothing was tried", "")
    if front.left <= SCALE_ALONE:
        return gate(name, True, "nothing but a scale stands before the first layer", "")
    chosen = scene.some(standing, scene.affordable(2 * STEPS, PART))
    num_standing = int(standing.sum())
    going_back = CountedModel(WithoutFront(model, front, off=False)).eval()
    taken_off = CountedModel(WithoutFront(model, front, off=True)).eval()
    members = (
        RoundTheFront.through(going_back, steps=STEPS),
        Transfer.through(taken_off, relative="the model without its front"),
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
        "attacks that take what stands before the first layer for a mere scale (BPDA), or leave it out",
        "What the model does to its images hides their gradient; attack it by hand (arXiv:2002.08347)",
    )
