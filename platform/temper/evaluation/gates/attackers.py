"""The attacks that gates add to those of a suite; their names begin with ``gate``."""

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from temper.attacks import LogitsFn, Member, PatchAttack, PatchPGD, PatchSearch, Sees, Square, apgd
from temper.attacks.base import AttackLoss, ascend, cross_entropy_of
from temper.attacks.losses import losses_of
from temper.attacks.norms import random_point
from temper.attacks.patches import corners_of, masks_at, patch_side, shares_of_places
from temper.evaluation.threats import margins
from temper.spec import Geometry, Norm, Threat

PATCH_LOCATIONS = 32
"""Places that an attack of a gate tries a patch at, with ``PATCH_SCOUTS`` steps each."""
PATCH_SCOUTS = 4


def ball_norm(threat: Threat) -> Norm:
    """The norm of a threat model that is a ball."""
    if threat.norm == "l0" or threat.norm == "semantic" or threat.norm == "patch":
        raise AssertionError(f"{threat.label} is no ball")
    return threat.norm


class GateMember(Member):
    """An attack within a ball, or a patch."""

    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1", "patch")

    def perturb(
        self, logits_fn: LogitsFn, images: Tensor, labels: Tensor, threat: Threat, generator: Any = None
    ) -> Tensor:
        if threat.norm == "patch":
            return self.patched(logits_fn, images, labels, threat.eps, generator)
        return self.within(logits_fn, images, labels, self.ball(threat.norm), threat.eps, generator)

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

    def patched(
        self, model: LogitsFn, images: Tensor, labels: Tensor, area: float, generator: torch.Generator
    ) -> Tensor:
        """Images with a square of at most ``area`` (share 0..1) changed."""
        raise AssertionError(f"{type(self).__name__} does not say how it makes patches")


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

    def patched(self, model: Any, images: Any, labels: Any, area: float, generator: Any) -> Tensor:
        attack = PatchAttack(locations=PATCH_LOCATIONS, scout_steps=PATCH_SCOUTS, steps=self.steps)
        return attack.perturb(model, images, labels, Threat(norm="patch", eps=area), generator)


class StandIn(GateMember):
    """Attacks another function of the images instead of the model."""

    _logits_fn: LogitsFn = PrivateAttr()

    @classmethod
    def through(cls, logits_fn: LogitsFn, **settings: Any) -> Self:
        """A member with ``settings`` that attacks ``logits_fn``."""
        member = cls(**settings)
        member._logits_fn = logits_fn
        return member


class RoundTheFront(ManySteps, StandIn):
    """APGD on the margin of a function whose gradient stands in for the model's."""

    @property
    def name(self) -> str:
        return f"gate-bpda-{self.steps}"

    def within(self, model: Any, *arguments: Any) -> Tensor:
        return super().within(self._logits_fn, *arguments)

    def patched(self, model: Any, *arguments: Any) -> Tensor:
        return super().patched(self._logits_fn, *arguments)


class OneStep(GateMember):
    """One full step on the cross-entropy. Goodfellow et al. 2014, arXiv:1412.6572."""

    kind: Literal["gate-one-step"] = "gate-one-step"

    def within(self, model: Any, images: Any, labels: Any, norm: Norm, eps: float, generator: Any) -> Tensor:
        return ascend(cross_entropy_of(model, labels), norm, images, images, eps, eps, steps=1)

    def patched(self, model: Any, images: Any, labels: Any, area: float, generator: Any) -> Tensor:
        attack = PatchPGD(eps=area, steps=1, step_size=1.0, random_start=False)
        return attack.perturb(model, images, labels, generator)


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

    def patched(self, model: Any, images: Any, labels: Any, area: float, generator: Any) -> Tensor:
        attack = PatchSearch(num_queries=self.draws, random_frac=1.0)
        return attack.perturb(model, images, labels, Threat(norm="patch", eps=area), generator)


class Queries(GateMember):
    """Square, which asks only for logits. Andriushchenko et al. 2020, arXiv:1912.00049.

    Of patches, a random search.
    """

    kind: Literal["gate-square"] = "gate-square"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "patch")
    sees: ClassVar[Sees] = "scores"
    num_queries: int = Field(default=150, ge=1)

    def within(self, model: Any, images: Any, labels: Any, norm: Norm, eps: float, generator: Any) -> Tensor:
        square = Square(num_queries=self.num_queries)
        return square.perturb(model, images, labels, Threat(norm=norm, eps=eps), generator)

    def patched(self, model: Any, images: Any, labels: Any, area: float, generator: Any) -> Tensor:
        attack = PatchSearch(num_queries=self.num_queries)
        return attack.perturb(model, images, labels, Threat(norm="patch", eps=area), generator)


class Transfer(StandIn):
    """PGD on the margin of another model, a relative; what fools that one may fool this one too.

    It goes on after the relative is fooled: what lies just behind one model's boundary transfers badly.
    """

    kind: Literal["gate-transfer"] = "gate-transfer"
    sees: ClassVar[Sees] = "decisions"
    relative: str
    steps: int = Field(default=20, ge=1)

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.relative}"

    def within(self, model: Any, images: Any, labels: Any, norm: Norm, eps: float, generator: Any) -> Tensor:
        start = random_point(norm, images, eps, generator)
        step_size = 2.5 * eps / self.steps
        return ascend(
            self._margin(labels),
            norm,
            start,
            images,
            eps,
            step_size,
            self.steps,
        )

    def _margin(self, labels: Tensor) -> AttackLoss:
        return AttackLoss(
            self._logits_fn, lambda logits, rows: losses_of("margin", logits, labels[rows]).sum()
        )

    def patched(self, model: Any, images: Any, labels: Any, area: float, generator: Any) -> Tensor:
        side = patch_side(area, *images.shape[-2:])
        places = corners_of(shares_of_places(images, generator), 0, side, images)
        masks = masks_at(places, side, images)
        start = torch.where(masks > 0, torch.empty_like(images).uniform_(generator=generator), images)
        return ascend(
            self._margin(labels),
            "linf",
            start,
            images,
            masks,
            2.5 / self.steps,
            self.steps,
        )
