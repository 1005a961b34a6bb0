"""Attack suites by name, versioned and hashed."""

from typing import Literal

from pydantic import Field

from temper.evaluation.members import (
    AnyMember,
    DDNMember,
    DeepFoolMember,
    EADMember,
    FGSMMember,
    FMNMember,
    PGDMember,
    SLIDEMember,
)
from temper.records import SuiteRecord
from temper.spec import Geometry, Spec, content_hash

SuiteName = Literal["quick", "standard"]


class EvaluationSpec(Spec):
    """How a finished run is evaluated, on the test split, within the recipe's threat model."""

    suite: SuiteName = "quick"
    batch_size: int = Field(default=128, ge=1)
    max_images: int | None = Field(default=None, ge=1)
    """A fixed stratified subset of the test split; ``null``: all of it."""


class Suite(Spec):
    """Attacks in the order of the cascade: cheap ones first."""

    name: str
    version: int
    members: tuple[AnyMember, ...]

    @property
    def hash(self) -> str:
        """Changes with any setting of any member."""
        return content_hash(self.model_dump(mode="json"))

    @property
    def record(self) -> SuiteRecord:
        return SuiteRecord(name=self.name, version=self.version, hash=self.hash)


SUITES: dict[tuple[SuiteName, Geometry], Suite] = {
    ("quick", "linf"): Suite(
        name="quick-linf",
        version=1,
        members=(FGSMMember(), PGDMember(steps=20, rel_stepsize=0.125), DeepFoolMember()),
    ),
    ("standard", "linf"): Suite(
        name="standard-linf",
        version=1,
        members=(
            FGSMMember(),
            PGDMember(steps=20, rel_stepsize=0.125),
            DeepFoolMember(steps=50),
            PGDMember(steps=100, rel_stepsize=0.1, restarts=3),
        ),
    ),
    ("quick", "l2"): Suite(
        name="quick-l2",
        version=1,
        members=(FGSMMember(), PGDMember(steps=50, rel_stepsize=0.1), DDNMember(steps=50)),
    ),
    ("standard", "l2"): Suite(
        name="standard-l2",
        version=1,
        members=(
            FGSMMember(),
            PGDMember(steps=50, rel_stepsize=0.1),
            DDNMember(steps=100),
            PGDMember(steps=100, rel_stepsize=0.1, restarts=3),
        ),
    ),
    ("quick", "l1"): Suite(
        name="quick-l1",
        version=1,
        members=(SLIDEMember(steps=50, rel_stepsize=0.1), FMNMember(steps=100)),
    ),
    ("standard", "l1"): Suite(
        name="standard-l1",
        version=1,
        members=(
            SLIDEMember(steps=50, rel_stepsize=0.1),
            FMNMember(steps=200),
            EADMember(searches=6, steps=100),
            SLIDEMember(steps=100, rel_stepsize=0.05, restarts=3),
        ),
    ),
}


def suite_for(name: SuiteName, norm: Geometry) -> Suite:
    """The suite of that name for a norm."""
    return SUITES[name, norm]
