"""Foolbox's attacks in L2, with settings that can be trusted."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from temper.evaluation.members.foolbox_base import FoolboxSearchMember
from temper.spec import Geometry


class DDNMember(FoolboxSearchMember):
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
