"""What every member of a suite shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks import cut
from temper.seeds import derive_seed
from temper.spec import Geometry, Spec, Threat

Sees = Literal["gradients", "scores", "decisions"]
"""What an attack reads of the model: everything, its logits, or its predictions alone."""


class Member(Spec):
    """One attack of a suite. ``restarts`` are separate tries on the images that still stand."""

    kind: str
    restarts: int = Field(default=1, ge=1, le=1000)

    geometries: ClassVar[tuple[Geometry, ...]]
    """The norms that it attacks in."""
    sees: ClassVar[Sees] = "gradients"
    min_classes: ClassVar[int] = 2
    is_general: ClassVar[bool] = True
    """Whether it attacks any model: gates try it on some of their own making."""

    @property
    def name(self) -> str:
        """Short and unique within a suite."""
        return self.kind + self.suffix

    @property
    def suffix(self) -> str:
        """Of names: ``x3`` for three restarts."""
        return f"x{self.restarts}" if self.restarts > 1 else ""

    def suits(self, num_classes: int) -> bool:
        """Whether it is defined for so many classes; where not, it is left out."""
        return num_classes >= self.min_classes

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        """Perturbed images (B,3,H,W) of ``images`` in [0,1], which ``model`` classifies as ``labels`` (B,).

        ``model`` is in eval mode with frozen parameters. The caller checks what is returned: no attack
        is trusted.
        """
        raise AssertionError(f"{type(self).__name__} does not say how it attacks")


class SearchMember(Member):
    """An attack whose search draws nothing and does not depend on ``eps``: one serves every ``eps``.

    Most look for the nearest point that fools the model, and ``eps`` decides only where the way is cut.
    """

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        return self.within(images, self.search(model, images, labels, threat.norm), threat)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, norm: Geometry) -> Tensor:
        """(B,3,H,W): points at any distance, or directions to go."""
        raise AssertionError(f"{type(self).__name__} does not say how it attacks")

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        """What was ``found`` (B,3,H,W), brought into the ball around ``images``."""
        raise AssertionError(f"{type(self).__name__} does not say how it cuts")


class FoolboxMember(Member):
    """An attack of Foolbox, with its defects mended. It sees as many images at once as fit."""

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        found = []
        for rows in cut(images):
            own = seed if rows.start == 0 else derive_seed(seed, "portion", rows.start)
            with as_foolbox(model, images[rows], own) as fmodel:
                found.append(self.attack(fmodel, images[rows].clamp(0, 1), labels[rows], threat))
        return torch.cat(found)

    def attack(self, fmodel: Any, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Perturbed images. Foolbox's raw ones may leave the ball, so the clipped ones are taken."""
        _, clipped, _ = self.build(threat.norm)(fmodel, images, labels, epsilons=threat.eps)
        return clipped  # type: ignore[no-any-return]

    def build(self, norm: Geometry) -> Any:
        """The Foolbox attack."""
        raise AssertionError(f"{type(self).__name__} does not name its attack")


class FoolboxSearchMember(SearchMember):
    """An attack of Foolbox that looks for the smallest perturbation, with its defects mended."""

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, norm: Geometry) -> Tensor:
        parts = []
        for rows in cut(images):
            with as_foolbox(model, images[rows], seed=0) as fmodel:
                found, _, _ = self.build(norm)(fmodel, images[rows].clamp(0, 1), labels[rows], epsilons=None)
            parts.append(found)
        return torch.cat(parts)

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        clipped: Tensor = self.build(threat.norm).distance.clip_perturbation(images, found, threat.eps)
        return clipped

    def build(self, norm: Geometry) -> Any:
        """The Foolbox attack."""
        raise AssertionError(f"{type(self).__name__} does not name its attack")


@contextmanager
def as_foolbox(model: nn.Module, images: Tensor, seed: int) -> Iterator[Any]:
    """``model`` as Foolbox wants it, and the global generators, which its attacks draw from, at ``seed``.

    Give its attacks images that are clamped to [0,1]: it refuses a batch for an excess of 1e-7, without a
    word.
    """
    import foolbox

    with torch.random.fork_rng(enabled=True):
        torch.manual_seed(seed)
        yield foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)


def without_black_images(images: Tensor, found: Tensor, clipped: Tensor) -> Tensor:
    """``clipped``, but the images themselves where ``found``, a minimum-norm attack's result, is black.

    Black is what Carlini-Wagner and EAD return of an image that they could not fool. Foolbox counts it as a
    success wherever the model takes black for another class.
    """
    failed = (found == 0).flatten(1).all(1)
    return torch.where(failed.view(-1, 1, 1, 1), images, clipped)
