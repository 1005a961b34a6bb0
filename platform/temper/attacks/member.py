"""What the attacks of a suite share: restarts, and a threat model that is an argument."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks.base import LogitsFn
from temper.spec import Geometry, Norm, Spec, Threat

Sees = Literal["gradients", "scores", "decisions"]
"""What an attack reads of the model: everything, its logits, or its predictions alone."""


class Member(Spec):
    """One attack of a suite. ``restarts`` are separate tries on the images that still stand.

    One in plain torch has a ``perturb``; one that draws from the global generators has a ``run``.
    """

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

        ``model`` is in eval mode with frozen parameters. The caller checks what is returned: no attack's
        own report is trusted.
        """
        return self.perturb(model, images, labels, threat, torch.Generator(images.device).manual_seed(seed))

    def perturb(
        self,
        logits_fn: LogitsFn,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Adversarial examples (B,3,H,W) in [0,1], detached, each within ``threat`` of its image."""
        raise AssertionError(f"{type(self).__name__} does not say how it perturbs")

    def ball(self, norm: Geometry) -> Norm:
        """``norm``, where this attacks in it and it is a ball.

        Raises:
            ValueError: it is another one.
        """
        if norm not in self.geometries or norm in ("l0", "semantic", "patch"):
            raise ValueError(f"{self.kind} supports the norms {' and '.join(self.geometries)}, got {norm}")
        return norm  # type: ignore[return-value]  # mypy does not narrow by a tuple


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
