"""Patches as members: by gradients, and by random search."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from temper.attacks import PatchAttack, PatchSearch, smallest_num_classes
from temper.attacks.losses import LossName
from temper.evaluation.members.base import Member, Sees
from temper.evaluation.members.own import SHORT
from temper.spec import Geometry, Threat


class PatchMember(Member):
    """Auto-PGD within a square, short at many random places and long at the best. arXiv:1801.02608.

    ``num_goals``: towards the likeliest wrong classes in turn, with a search over places for each.
    """

    kind: Literal["patch"] = "patch"
    geometries: ClassVar[tuple[Geometry, ...]] = ("patch",)
    loss: LossName = "margin"
    locations: int = Field(default=16, ge=1, le=10_000)
    scout_steps: int = Field(default=8, ge=1, le=10_000)
    steps: int = Field(default=50, ge=1, le=10_000)
    num_goals: int = Field(default=0, ge=0)

    @property
    def name(self) -> str:
        goals = f"-goals-{self.num_goals}" if self.num_goals else ""
        return (
            f"patch-{SHORT[self.loss]}-{self.locations}x{self.scout_steps}-{self.steps}{goals}{self.suffix}"
        )

    def suits(self, num_classes: int) -> bool:
        # Towards the only other class is away from the label.
        enough = smallest_num_classes(self.loss, has_goal=self.num_goals > 0)
        return num_classes >= max(enough, 3 if self.num_goals else 2)

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        attack = PatchAttack(
            eps=threat.eps,
            loss=self.loss,
            locations=self.locations,
            scout_steps=self.scout_steps,
            steps=self.steps,
            num_goals=self.num_goals,
        )
        generator = torch.Generator(images.device).manual_seed(seed)
        return attack.perturb(model, images, labels, generator)


class PatchSearchMember(Member):
    """Random patches, the best of many, then changed bit by bit: no gradients. arXiv:2006.12834."""

    kind: Literal["patch_search"] = "patch_search"
    geometries: ClassVar[tuple[Geometry, ...]] = ("patch",)
    sees: ClassVar[Sees] = "scores"
    num_queries: int = Field(default=200, ge=1, le=1_000_000)
    random_frac: float = Field(default=0.5, gt=0, le=1)

    @property
    def name(self) -> str:
        return f"patch-search-{self.num_queries}{self.suffix}"

    def run(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
        attack = PatchSearch(eps=threat.eps, num_queries=self.num_queries, random_frac=self.random_frac)
        generator = torch.Generator(images.device).manual_seed(seed)
        return attack.perturb(model, images, labels, generator)
