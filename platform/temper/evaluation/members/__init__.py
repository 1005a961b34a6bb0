"""The attacks that suites are made of: Foolbox's, mended, and our own.

Add one: a ``Member`` in a file of this package, its name in ``AnyMember``, its place in a suite.
"""

from typing import Annotated

from pydantic import Field

from temper.evaluation.members.base import FoolboxMember, Member
from temper.evaluation.members.foolbox_ball import DDNMember, DeepFoolMember, FGSMMember, PGDMember
from temper.evaluation.members.foolbox_l1 import EADMember, FMNMember, SLIDEMember
from temper.evaluation.members.own import (
    APGDMember,
    GoalAPGDMember,
    GoalPGDMember,
    MarginPGDMember,
    SquareMember,
)

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
    | MarginPGDMember
    | GoalPGDMember
    | SquareMember,
    Field(discriminator="kind"),
]

__all__ = [
    "APGDMember",
    "AnyMember",
    "DDNMember",
    "DeepFoolMember",
    "EADMember",
    "FGSMMember",
    "FMNMember",
    "FoolboxMember",
    "GoalAPGDMember",
    "GoalPGDMember",
    "MarginPGDMember",
    "Member",
    "PGDMember",
    "SLIDEMember",
    "SquareMember",
]
