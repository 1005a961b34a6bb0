"""Foolbox's attacks in Linf and L2, with settings that can be trusted."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from temper.evaluation.members.base import FoolboxMember, FoolboxNearestMember
from temper.spec import Geometry


class FGSMMember(FoolboxMember):
    """One full step. Goodfellow et al. 2014, arXiv:1412.6572."""

    kind: Literal["fgsm"] = "fgsm"
    geometries: ClassVar[tuple[Geometry, ...]] = ("linf", "l2")

    def build(self, norm: Geometry) -> Any:
        import foolbox.attacks as fa

        return fa.LinfFastGradientAttack() if norm == "linf" else fa.L2FastGradientAttack()


class DDNMember(FoolboxNearestMember):
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
