"""Sparse noise, and what is left of it: L0 from decisions alone."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks import Member, Sees
from temper.evaluation.members.foolbox_base import FoolboxMember
from temper.evaluation.members.pixels import pixels_changed, within_pixels
from temper.evaluation.members.queries import is_fooled, per_image, seeded
from temper.evaluation.members.starts import adversarial_starts
from temper.spec import Geometry, Threat


class SaltPepperMember(FoolboxMember):
    """Black and white pixels, as few as fool. Weak: nothing is learned from one draw for the next.

    Foolbox refuses a finite number of pixels, so it is asked for its smallest and we count.
    """

    kind: Literal["salt_pepper"] = "salt_pepper"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l0",)
    sees: ClassVar[Sees] = "decisions"
    steps: int = Field(default=100, ge=1)

    @property
    def name(self) -> str:
        return f"salt-pepper-{self.steps}{self.suffix}"

    def attack(self, fmodel: Any, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        found, _, _ = self.build(threat.norm)(fmodel, images, labels, epsilons=None)
        return within_pixels(images, found, threat.eps)

    def build(self, norm: Geometry) -> Any:
        import foolbox.attacks as fa

        return fa.SaltAndPepperNoiseAttack(steps=self.steps, across_channels=True)


class PointwiseMember(Member):
    """Puts pixels of a noisy image back as long as it still fools. Schott et al. 2019, arXiv:1805.09190.

    Our own loop. Foolbox's puts single coordinates back, one pass of the whole batch for each of them, and
    ends when one image of the batch has no start. Here pixels go back in blocks that shrink, an image leaves
    as soon as few enough differ, and one without a start is returned as it was.
    """

    kind: Literal["pointwise"] = "pointwise"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l0",)
    sees: ClassVar[Sees] = "decisions"
    rounds: int = Field(default=3, ge=1)
    """How often all pixels are tried one by one, at most."""

    @property
    def name(self) -> str:
        return f"pointwise-{self.rounds}{self.suffix}"

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        generator = seeded(seed, images)
        points, found = adversarial_starts(model, images, labels, generator, noises=("salt",))
        points = torch.where(per_image(found), points, images)
        for block in self._blocks(images):
            before = points.clone()
            _put_back(model, images, points, labels, threat.eps, block, generator)
            if block == 1 and torch.equal(before, points):
                break
        return within_pixels(images, points, threat.eps)

    def _blocks(self, images: Tensor) -> list[int]:
        """Numbers of pixels that go back together: a quarter as many each time, then one."""
        size = images[0, 0].numel() // 16
        blocks = []
        while size > 1:
            blocks.append(size)
            size //= 4
        return blocks + [1] * self.rounds


def _put_back(
    model: nn.Module,
    images: Tensor,
    points: Tensor,
    labels: Tensor,
    eps: float,
    block: int,
    generator: torch.Generator,
) -> None:
    """Try each block of pixels of ``points`` once, in random order; ``points`` is changed in place."""
    changed = (points != images).any(1).flatten(1)
    keys = torch.rand(changed.shape, device=images.device, generator=generator)
    order = (keys + (~changed).float() * 2).argsort(1)
    for start in range(0, int(changed.sum(1).max()), block):
        left = (changed.sum(1) > start) & (pixels_changed(images, points) > eps)
        active = left.nonzero().flatten()
        if not len(active):
            return
        back = torch.zeros_like(changed[active]).scatter(1, order[active, start : start + block], True)
        shape = (len(active), 1, *images.shape[2:])
        tried = torch.where(back.view(shape), images[active], points[active])
        fooled = is_fooled(model, tried, labels[active])
        points[active[fooled]] = tried[fooled]
