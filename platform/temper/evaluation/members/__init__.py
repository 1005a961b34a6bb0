"""The attacks that suites are made of: Foolbox's, mended, and our own.

Add one: a ``Member`` in a file of this package, its name in ``AnyMember``, its place in a suite.
"""

from typing import Annotated

from pydantic import Field

from temper.evaluation.members.base import FoolboxMember, Member, SearchMember
from temper.evaluation.members.custom import CustomMember
from temper.evaluation.members.foolbox_ball import DDNMember
from temper.evaluation.members.foolbox_l0 import PointwiseMember, SaltPepperMember
from temper.evaluation.members.foolbox_l1 import EADMember, SLIDEMember
from temper.evaluation.members.foolbox_minimum import CWMember, FMNMember
from temper.evaluation.members.hop_skip_jump import HopSkipJumpMember
from temper.evaluation.members.own import (
    APGDMember,
    DeepFoolMember,
    FGSMMember,
    GoalAPGDMember,
    GoalPGDMember,
    MarginPGDMember,
    PGDMember,
    ShrinkingAPGDMember,
    SquareMember,
)
from temper.evaluation.members.patch import PatchMember, PatchSearchMember
from temper.evaluation.members.semantic import (
    BlurMember,
    BrightnessMember,
    ContrastMember,
    SemanticMember,
    SpatialMember,
)
from temper.evaluation.members.sparse import PGDL0Member, SparseRSMember

AnyMember = Annotated[
    FGSMMember
    | PGDMember
    | DeepFoolMember
    | DDNMember
    | SLIDEMember
    | FMNMember
    | EADMember
    | APGDMember
    | GoalAPGDMember
    | ShrinkingAPGDMember
    | MarginPGDMember
    | GoalPGDMember
    | SquareMember
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
    | PatchMember
    | PatchSearchMember
    | CustomMember,
    Field(discriminator="kind"),
]

__all__ = [
    "APGDMember",
    "AnyMember",
    "BlurMember",
    "BrightnessMember",
    "CWMember",
    "ContrastMember",
    "CustomMember",
    "DDNMember",
    "DeepFoolMember",
    "EADMember",
    "FGSMMember",
    "FMNMember",
    "FoolboxMember",
    "GoalAPGDMember",
    "GoalPGDMember",
    "HopSkipJumpMember",
    "MarginPGDMember",
    "Member",
    "PGDL0Member",
    "PGDMember",
    "PatchMember",
    "PatchSearchMember",
    "PointwiseMember",
    "SLIDEMember",
    "SaltPepperMember",
    "SearchMember",
    "SemanticMember",
    "ShrinkingAPGDMember",
    "SparseRSMember",
    "SpatialMember",
    "SquareMember",
]
