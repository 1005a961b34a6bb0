"""Foolbox's attacks in L1, with their geometry mended."""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from temper.attacks.norms import project, steepest
from temper.evaluation.members.foolbox_base import FoolboxMember, FoolboxSearchMember, without_black_images
from temper.spec import Geometry, Threat


class SLIDEMember(FoolboxMember):
    """Sparse descent, L1 only, from a random start. Tramer and Boneh 2019, arXiv:1904.13000.

    Foolbox's loop with our geometry. Its projection ends outside the ball, because it divides by one
    coordinate too many, and an image inside the ball is thrown out of it whenever another of the batch is
    outside; its quantiles are computed by NumPy, whatever the device.
    """

    kind: Literal["slide"] = "slide"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l1",)
    steps: int = Field(ge=1)
    rel_stepsize: float = Field(gt=0)

    @property
    def name(self) -> str:
        return f"slide-{self.steps}{self.suffix}"

    def build(self, norm: Geometry) -> Any:
        import eagerpy
        import foolbox.attacks as fa

        attack = fa.SparseL1DescentAttack(rel_stepsize=self.rel_stepsize, steps=self.steps, random_start=True)
        attack.project = lambda x, x0, epsilon: eagerpy.astensor(project("l1", x.raw, x0.raw, epsilon))
        attack.normalize = lambda gradients, x, bounds: eagerpy.astensor(steepest("l1", gradients.raw, x.raw))
        return attack


class EADMember(FoolboxSearchMember):
    """Elastic-net attack, L1 only. Chen et al. 2018, arXiv:1709.04114.

    Its early end depends on the loss of the whole batch, so it is off. Where it finds nothing it returns a
    black image, which is not counted.
    """

    kind: Literal["ead"] = "ead"
    geometries: ClassVar[tuple[Geometry, ...]] = ("l1",)
    searches: int = Field(default=6, ge=1)
    """Steps of the search for the weight of the loss."""
    steps: int = Field(default=100, ge=1)
    """Of each search."""

    @property
    def name(self) -> str:
        return f"ead-{self.searches}x{self.steps}{self.suffix}"

    def within(self, images: Tensor, found: Tensor, threat: Threat) -> Tensor:
        return without_black_images(images, found, super().within(images, found, threat))

    def build(self, norm: Geometry) -> Any:
        import foolbox.attacks as fa

        return fa.EADAttack(
            binary_search_steps=self.searches,
            steps=self.steps,
            initial_const=1.0,
            decision_rule="L1",
            abort_early=False,
        )
