"""The attacks that gates add to those of a suite; their names begin with ``gate``."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from temper.attacks import LogitsFn, Square, apgd
from temper.attacks.base import ascend, cross_entropy_of
from temper.attacks.losses import losses_of
from temper.attacks.norms import random_point
from temper.evaluation.members import Member
from temper.evaluation.members.base import Sees
from temper.evaluation.threats import margins
from temper.spec import Geometry, Norm, Threat


def ball_norm(threat: Threat) -> Norm:
    """The norm of a threat model that is a ball."""
    if threat.norm == "l0" or threat.norm == "semantic":
        raise AssertionError(f"{threat.label} is no ball")
    return threat.norm


class GateMember(Member):
    """An attack within a ball."""

    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        generator = torch.Generator(images.device).manual_seed(seed)
        return self.within(model, images, labels, ball_norm(threat), threat.eps, generator)

    def within(
        self,
        model: LogitsFn,
        images: Tensor,
        labels: Tensor,
        norm: Norm,
        eps: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Perturbed images within ``eps``."""
        raise AssertionError(f"{type(self).__name__} does not say how it attacks")


class ManySteps(GateMember):
    """APGD on the margin, whose gradient does not fade where the model is sure.

    Croce and Hein 2020, arXiv:2003.01690. ``eps`` may be any number here.
    """

    kind: Literal["gate-apgd"] = "gate-apgd"
    steps: int = Field(ge=1)

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.steps}"

    def within(self, model: Any, images: Any, labels: Any, norm: Norm, eps: float, generator: Any) -> Tensor:
        # As a tensor, because the eps of a gate may be larger than any that a recipe may name.
        radii = torch.full((len(images),), eps, device=images.device)
        found = apgd(model, images, labels, norm, radii, loss="margin", steps=self.steps, generator=generator)
        return found.perturbed


class OneStep(GateMember):
    """One full step on the cross-entropy. Goodfellow et al. 2014, arXiv:1412.6572."""

    kind: Literal["gate-one-step"] = "gate-one-step"

    def within(self, model: Any, images: Any, labels: Any, norm: Norm, eps: float, generator: Any) -> Tensor:
        return ascend(cross_entropy_of(model, labels), norm, images, images, eps, eps, steps=1)


class Noise(GateMember):
    """Uniform points of the ball; of ``draws``, the one of the smallest margin."""

    kind: Literal["gate-noise"] = "gate-noise"
    sees: ClassVar[Sees] = "scores"
    draws: int = Field(default=50, ge=1)

    @torch.no_grad()
    def within(self, model: Any, images: Tensor, labels: Any, norm: Norm, eps: Any, generator: Any) -> Tensor:
        best, smallest = images.clone(), margins(model(images), labels)
        for _ in range(self.draws):
            drawn = random_point(norm, images, eps, generator)
            rows = (smallest >= 0).nonzero().flatten()
            if len(rows) == 0:
                break
            found = margins(model(drawn[rows]), labels[rows])
            lower = found < smallest[rows]
            best[rows[lower]] = drawn[rows[lower]]
            smallest[rows[lower]] = found[lower]
        return best


class Queries(GateMember):
    """Square, which asks only for logits. Andriushchenko et al. 2020, arXiv:1912.00049."""

    kind: Literal["gate-square"] = "gate-square"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    sees: ClassVar[Sees] = "scores"
    num_queries: int = Field(default=150, ge=1)

    def within(self, model: Any, images: Any, labels: Any, norm: Norm, eps: float, generator: Any) -> Tensor:
        square = Square(norm=norm, eps=eps, num_queries=self.num_queries)
        return square.perturb(model, images, labels, generator)


class Transfer(GateMember):
    """PGD on the margin of another model, a relative; what fools that one may fool this one too.

    It goes on after the relative is fooled: what lies just behind one model's boundary transfers badly.
    """

    kind: Literal["gate-transfer"] = "gate-transfer"
    sees: ClassVar[Sees] = "decisions"
    relative: str
    steps: int = Field(default=20, ge=1)
    _logits_fn: LogitsFn = PrivateAttr()

    @classmethod
    def from_relative(cls, relative: str, logits_fn: LogitsFn) -> "Transfer":
        member = cls(relative=relative)
        member._logits_fn = logits_fn
        return member

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.relative}"

    def within(self, model: Any, images: Any, labels: Any, norm: Norm, eps: float, generator: Any) -> Tensor:
        start = random_point(norm, images, eps, generator)
        step_size = 2.5 * eps / self.steps
        return ascend(
            lambda points: losses_of("margin", self._logits_fn(points), labels).sum(),
            norm,
            start,
            images,
            eps,
            step_size,
            self.steps,
        )
