"""What every member of a suite shares."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

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

        ``model`` is in eval mode with frozen parameters. The caller checks what is returned: no attack's
        own word is believed.
        """
        raise AssertionError(f"{type(self).__name__} does not say how it attacks")


class FoolboxMember(Member):
    """An attack of Foolbox, with its defects mended."""

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        import foolbox

        fmodel = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        # Foolbox draws from the global generators.
        with torch.random.fork_rng(enabled=True):
            torch.manual_seed(seed)
            # It refuses a batch for an excess of 1e-7, without a word.
            return self.attack(fmodel, images.clamp(0, 1), labels, threat)

    def attack(self, fmodel: Any, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Perturbed images. With an epsilon, Foolbox cuts minimum-norm results to the ball; the raw ones of a
        fixed-epsilon attack may leave it. So the clipped images are taken.
        """
        _, clipped, _ = self.build(threat.norm)(fmodel, images, labels, epsilons=threat.eps)
        return clipped  # type: ignore[no-any-return]

    def build(self, norm: Geometry) -> Any:
        """The Foolbox attack."""
        raise AssertionError(f"{type(self).__name__} does not name its attack")


def without_black_images(images: Tensor, found: Tensor, clipped: Tensor) -> Tensor:
    """``clipped``, but the images themselves where ``found``, a minimum-norm attack's result, is black.

    Black is what Carlini-Wagner and EAD return of an image that they could not fool. Foolbox counts it as a
    success wherever the model takes black for another class.
    """
    failed = (found == 0).flatten(1).all(1)
    return torch.where(failed.view(-1, 1, 1, 1), images, clipped)
