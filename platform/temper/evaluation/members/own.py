"""Our own attacks as members: adaptive steps, goals, and random search."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks import (
    APGD,
    Attack,
    DeepFool,
    GoalAPGD,
    GoalPGD,
    LastPGD,
    MarginPGD,
    ShrinkingAPGD,
    Square,
    smallest_num_classes,
)
from temper.attacks.base import cross_entropy_of, image_gradient
from temper.attacks.losses import LossName
from temper.attacks.norms import project, steepest
from temper.evaluation.members.base import Member, SearchMember, Sees
from temper.spec import Geometry, Norm, Threat

SHORT = {"cross_entropy": "ce", "dlr": "dlr", "margin": "margin"}


class OwnMember(Member):
    """An attack in plain torch; it draws from a generator of its own."""

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        generator = torch.Generator(images.device).manual_seed(seed)
        norm: Norm = threat.norm  # type: ignore[assignment]  # one of its geometries
        attack = self.build(norm, threat.eps, self._num_classes(model, images))
        return attack.perturb(model, images, labels, generator)

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        """The attack within a threat model, for a model of so many classes."""
        raise AssertionError(f"{type(self).__name__} does not name its attack")

    def _num_classes(self, model: nn.Module, images: Tensor) -> int:
        with torch.no_grad():
            logits: Tensor = model(images[:1])
        return logits.shape[1]


class FGSMMember(SearchMember):
    """One full step. Goodfellow et al. 2014, arXiv:1412.6572."""

    kind: Literal["fgsm"] = "fgsm"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, norm: Geometry) -> Tensor:
        ball: Norm = norm  # type: ignore[assignment]  # one of its geometries
        return steepest(ball, image_gradient(cross_entropy_of(model, labels), images), images)

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        return (images + threat.eps * found).clamp(0, 1)


class PGDMember(OwnMember):
    """Cross-entropy PGD from a random start. Madry et al. 2018, arXiv:1706.06083.

    Foolbox's default step sizes are too small to find what is there (71.9 % against 34.4 % robust in
    L2), so the step is always given: ``rel_stepsize`` times eps.
    """

    kind: Literal["pgd"] = "pgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    steps: int = Field(ge=1)
    rel_stepsize: float = Field(gt=0)
    random_start: bool = True

    @property
    def name(self) -> str:
        return f"pgd-{self.steps}{self.suffix}"

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        step, random_start = self.rel_stepsize, self.random_start
        return LastPGD(norm=norm, eps=eps, steps=self.steps, rel_step_size=step, random_start=random_start)


class DeepFoolMember(SearchMember):
    """Steps to the nearest linearised boundary. Moosavi-Dezfooli et al. 2016, arXiv:1511.04599."""

    kind: Literal["deepfool"] = "deepfool"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    steps: int = Field(default=25, ge=1)
    candidates: int = Field(default=10, ge=2)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, norm: Geometry) -> Tensor:
        settings = {"norm": norm, "steps": self.steps, "candidates": self.candidates}
        # Any eps would do: the attack cuts what it found to it, and this is what it found.
        return DeepFool.model_validate({**settings, "eps": 0.0}).nearest(model, images, labels)

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        norm: Norm = threat.norm  # type: ignore[assignment]  # one of its geometries
        return project(norm, found, images, threat.eps)


class APGDMember(OwnMember):
    """Auto-PGD. Croce and Hein 2020, arXiv:2003.01690; in L1 2021, arXiv:2103.01208."""

    kind: Literal["apgd"] = "apgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    loss: LossName = "cross_entropy"
    steps: int = Field(default=100, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"apgd-{SHORT[self.loss]}-{self.steps}{self.suffix}"

    def suits(self, num_classes: int) -> bool:
        return num_classes >= smallest_num_classes(self.loss)

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        return APGD(norm=norm, eps=eps, loss=self.loss, steps=self.steps)


class GoalAPGDMember(OwnMember):
    """Auto-PGD towards the most likely wrong classes in turn.

    On the DLR loss, or on the margin where there are fewer than the 4 classes that it needs.
    """

    kind: Literal["goal_apgd"] = "goal_apgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    num_goals: int = Field(default=9, ge=1)
    steps: int = Field(default=100, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"apgd-goals-{self.steps}{self.suffix}"

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        loss: LossName = "dlr" if num_classes >= smallest_num_classes("dlr", has_goal=True) else "margin"
        goals = min(self.num_goals, num_classes - 1)
        return GoalAPGD(norm=norm, eps=eps, loss=loss, num_goals=goals, steps=self.steps)


class ShrinkingAPGDMember(OwnMember):
    """Auto-PGD within 3 eps, then 2 eps, then eps. Croce and Hein 2021, arXiv:2103.01208.

    ``num_goals`` likely wrong classes in turn, or, with 0, away from the label. On the margin where there are
    too few classes for the loss.
    """

    kind: Literal["shrinking_apgd"] = "shrinking_apgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l1",)
    loss: LossName = "cross_entropy"
    num_goals: int = Field(default=0, ge=0)
    steps: int = Field(default=100, ge=3, le=10_000)

    @property
    def name(self) -> str:
        aim = "goals" if self.num_goals else SHORT[self.loss]
        return f"apgd-shrinking-{aim}-{self.steps}{self.suffix}"

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        goals = min(self.num_goals, num_classes - 1)
        is_defined = num_classes >= smallest_num_classes(self.loss, has_goal=goals > 0)
        loss: LossName = self.loss if is_defined else "margin"
        return ShrinkingAPGD(norm=norm, eps=eps, loss=loss, num_goals=goals, steps=self.steps)


class MarginPGDMember(OwnMember):
    """PGD on the margin, whose gradient does not fade where the model is sure. arXiv:1608.04644."""

    kind: Literal["margin_pgd"] = "margin_pgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    steps: int = Field(default=100, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"margin-pgd-{self.steps}{self.suffix}"

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        return MarginPGD(norm=norm, eps=eps, steps=self.steps)


class GoalPGDMember(OwnMember):
    """PGD towards the most likely wrong classes in turn."""

    kind: Literal["goal_pgd"] = "goal_pgd"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2", "l1")
    num_goals: int = Field(default=9, ge=1)
    steps: int = Field(default=50, ge=1, le=10_000)

    @property
    def name(self) -> str:
        return f"goal-pgd-{self.steps}{self.suffix}"

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        goals = min(self.num_goals, num_classes - 1)
        return GoalPGD(norm=norm, eps=eps, num_goals=goals, steps=self.steps)


class SquareMember(OwnMember):
    """Random search over squares, from logits alone. Andriushchenko et al. 2020, arXiv:1912.00049."""

    kind: Literal["square"] = "square"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    sees: ClassVar[Sees] = "scores"
    num_queries: int = Field(default=1000, ge=1, le=1_000_000)

    @property
    def name(self) -> str:
        return f"square-{self.num_queries}{self.suffix}"

    def build(self, norm: Norm, eps: float, num_classes: int) -> Attack:
        return Square(norm=norm, eps=eps, num_queries=self.num_queries)
