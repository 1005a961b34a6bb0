"""The attacks that suites are made of: ``temper.attacks``, Foolbox's, mended, and those without a ball.

Add one: a ``Member`` in a file of its own, its name in ``AnyMember``, its place in a suite.
"""

from typing import Annotated

from pydantic import Field

from temper.attacks import (
    APGD,
    DeepFool,
    FullFGSM,
    GoalAPGD,
    GoalPGD,
    LastPGD,
    MarginPGD,
    PatchAttack,
    PatchSearch,
    ShrinkingAPGD,
    Square,
)
from temper.evaluation.members.custom import CustomMember
from temper.evaluation.members.foolbox_l0 import PointwiseMember, SaltPepperMember
from temper.evaluation.members.foolbox_l1 import EADMember, SLIDEMember
from temper.evaluation.members.foolbox_minimum import CWMember, DDNMember, FMNMember
from temper.evaluation.members.hop_skip_jump import HopSkipJumpMember
from temper.evaluation.members.semantic import BlurMember, BrightnessMember, ContrastMember, SpatialMember
from temper.evaluation.members.sparse import PGDL0Member, SparseRSMember

AnyMember = Annotated[
    FullFGSM
    | LastPGD
    | DeepFool
    | DDNMember
    | SLIDEMember
    | FMNMember
    | EADMember
    | APGD
    | GoalAPGD
    | ShrinkingAPGD
    | MarginPGD
    | GoalPGD
    | Square
    | CWMember
    | HopSkipJumpMember
    | PGDL0Member
    | SparseRSMember
    | PointwiseMember
    | SaltPepperMember
    | SpatialMember
    | ContrastMember
    | BrightnessMember
    | BlurMember
    | PatchAttack
    | PatchSearch
    | CustomMember,
    Field(discriminator="kind"),
]

__all__ = [
    "AnyMember",
    "BlurMember",
    "BrightnessMember",
    "CWMember",
    "ContrastMember",
    "DDNMember",
    "EADMember",
    "FMNMember",
    "HopSkipJumpMember",
    "PGDL0Member",
    "PointwiseMember",
    "SLIDEMember",
    "SaltPepperMember",
    "SparseRSMember",
    "SpatialMember",
]
