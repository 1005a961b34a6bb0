"""Foolbox's attacks in Linf and L2, with settings that can be trusted."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from temper.evaluation.members.base import FoolboxMember
from temper.spec import Geometry


class FGSMMember(FoolboxMember):
    """One full step. Goodfellow et al. 2014, arXiv:1412.6572."""

    kind: Literal["fgsm"] = "fgsm"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")

    def build(self, norm: Geometry) -> Any:
        import foolbox.attacks as fa

        return fa.LinfFastGradientAttack() if norm == "linf" else fa.L2FastGradientAttack()


class PGDMember(FoolboxMember):
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

    def build(self, norm: Geometry) -> Any:
        import foolbox.attacks as fa

        attack = fa.LinfPGD if norm == "linf" else fa.L2PGD
        return attack(rel_stepsize=self.rel_stepsize, steps=self.steps, random_start=self.random_start)


class DeepFoolMember(FoolboxMember):
    """Steps to the nearest linearised boundary. Moosavi-Dezfooli et al. 2016, arXiv:1511.04599."""

    kind: Literal["deepfool"] = "deepfool"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")
    steps: int = Field(default=25, ge=1)
    candidates: int = Field(default=10, ge=2)

    def build(self, norm: Geometry) -> Any:
        import foolbox.attacks as fa

        attack = fa.LinfDeepFoolAttack if norm == "linf" else fa.L2DeepFoolAttack
        return attack(steps=self.steps, candidates=self.candidates)


class DDNMember(FoolboxMember):
    """Decoupled direction and norm, L2 only. Rony et al. 2019, arXiv:1811.09600."""

    kind: Literal["ddn"] = "ddn"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l2",)
    steps: int = Field(default=100, ge=1)

    @property
    def name(self) -> str:
        return f"ddn-{self.steps}{self.suffix}"

    def build(self, norm: Geometry) -> Any:
        import foolbox.attacks as fa

        return fa.DDNAttack(steps=self.steps)
