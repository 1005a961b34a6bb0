"""The suites that come with temper. A published one never changes: a new version has other members."""

from typing import Literal

from temper.attacks import (
    APGD,
    DeepFool,
    FullFGSM,
    GoalAPGD,
    LastPGD,
    MarginPGD,
    PatchAttack,
    PatchSearch,
    ShrinkingAPGD,
    Square,
)
from temper.evaluation.members import (
    AnyMember,
    BlurMember,
    BrightnessMember,
    ContrastMember,
    CWMember,
    DDNMember,
    EADMember,
    FMNMember,
    HopSkipJumpMember,
    PGDL0Member,
    PointwiseMember,
    SLIDEMember,
    SparseRSMember,
    SpatialMember,
)
from temper.spec import Geometry

SuiteName = Literal["quick", "standard", "full"]

VERSION = 2
NEWER: dict[tuple[SuiteName, Geometry], int] = {
    ("quick", "linf"): 3,
    ("quick", "l2"): 3,
    ("quick", "l1"): 4,
    ("standard", "l1"): 3,
    ("full", "l1"): 3,
}
"""Versions of the suites that changed since."""

FIRST = LastPGD(steps=20, rel_stepsize=0.125)
# Half the steps, and then towards three likely classes: finds more than one long search, for the same passes
# (docs/evaluation.md).
SHORT = (APGD(loss="margin", steps=20), GoalAPGD(num_goals=3, steps=13))
PATCH = PatchAttack(scout_steps=5, steps=20)
# More places find more than more steps at each do. Two searches differ in one or two images of a hundred, so
# there are two (measured on road signs and digits).
PLACES = PatchAttack(locations=64, scout_steps=3, restarts=2)
SLIDE = SLIDEMember(steps=50, rel_stepsize=0.1)
# Many different starts far outside the ball: in L1 they find what steps within it do not.
FAR_SHORT = (
    ShrinkingAPGD(loss="margin", steps=40),
    ShrinkingAPGD(loss="dlr", num_goals=3, steps=20),
)
FAR = (
    ShrinkingAPGD(restarts=3),
    ShrinkingAPGD(loss="dlr", restarts=3),
    ShrinkingAPGD(loss="dlr", num_goals=9),
)
DEEP = (APGD(restarts=5), APGD(loss="dlr", restarts=5))

# From the cheap to the strong: the last ones meet few images. Random search comes last, so that it shows
# whether gradients have missed something.
SUITES: dict[SuiteName, dict[Geometry, tuple[AnyMember, ...]]] = {
    "quick": {
        "linf": (FullFGSM(), *SHORT),
        "l2": (FullFGSM(), *SHORT),
        "l1": FAR_SHORT,
        "l0": (PGDL0Member(steps=50),),
        "semantic": (SpatialMember(rotations=7, draws=0), ContrastMember(), BrightnessMember(), BlurMember()),
        "patch": (PATCH, PLACES, PatchSearch(num_queries=100)),
    },
    "standard": {
        "linf": (FullFGSM(), FIRST, APGD(), GoalAPGD(), Square()),
        "l2": (FullFGSM(), FIRST, APGD(), FMNMember(), GoalAPGD(), Square()),
        "l1": (FMNMember(), SLIDE, APGD(), *FAR),
        "l0": (PGDL0Member(restarts=5), FMNMember(), SparseRSMember(restarts=3)),
        "semantic": (
            SpatialMember(rotations=7, draws=20),
            ContrastMember(),
            BrightnessMember(),
            BlurMember(),
        ),
        "patch": (
            PATCH,
            PatchAttack(loss="cross_entropy", locations=32, scout_steps=3),
            PatchAttack(locations=128, scout_steps=3),
            PatchAttack(locations=32, scout_steps=3, num_goals=3),
            PatchSearch(num_queries=500),
        ),
    },
    "full": {
        "linf": (
            FullFGSM(),
            FIRST,
            *DEEP,
            MarginPGD(restarts=3),
            GoalAPGD(restarts=2),
            DeepFool(steps=50),
            FMNMember(steps=200),
            Square(num_queries=5000),
            HopSkipJumpMember(),
        ),
        "l2": (
            FullFGSM(),
            FIRST,
            *DEEP,
            DDNMember(steps=200),
            MarginPGD(restarts=3),
            GoalAPGD(restarts=2),
            CWMember(),
            FMNMember(steps=200),
            Square(num_queries=5000),
            HopSkipJumpMember(),
        ),
        "l1": (FMNMember(steps=200), SLIDE, *DEEP, *FAR, GoalAPGD(restarts=2), EADMember()),
        "l0": (
            PGDL0Member(steps=200, restarts=5),
            FMNMember(steps=200),
            SparseRSMember(queries=3000, restarts=3),
            PointwiseMember(),
        ),
        "semantic": (
            SpatialMember(rotations=25, shifts=9, draws=200),
            ContrastMember(levels=40),
            BrightnessMember(levels=40),
            BlurMember(levels=40),
        ),
        "patch": (
            PATCH,
            PatchAttack(loss="cross_entropy", locations=64, scout_steps=3, steps=100),
            PatchAttack(locations=256, scout_steps=5, steps=200, restarts=2),
            PatchAttack(locations=64, scout_steps=3, num_goals=9),
            PatchSearch(num_queries=3000),
        ),
    },
}
