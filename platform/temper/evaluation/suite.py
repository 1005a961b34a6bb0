"""Attack suites by name, versioned and hashed; own suites from YAML."""

from collections import Counter
from pathlib import Path
from typing import Self, get_args

from pydantic import Field, model_validator

from temper.errors import RecipeError
from temper.evaluation.members import AnyMember
from temper.evaluation.suites import NEWER, SUITES, VERSION, SuiteName
from temper.records import SuiteRecord
from temper.spec import Geometry, Spec, content_hash, read_yaml, validate


class Suite(Spec):
    """Attacks in the order of the cascade: cheap ones first."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    version: int = Field(default=1, ge=1)
    members: tuple[AnyMember, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        twice = [name for name, count in Counter(member.name for member in self.members).items() if count > 1]
        if twice:
            raise ValueError(f"members: {twice[0]} is given twice; change the settings of one")
        return self

    def members_for(self, num_classes: int) -> list[AnyMember]:
        """Those that are defined for so many classes."""
        return [member for member in self.members if member.suits(num_classes)]

    @property
    def hash(self) -> str:
        """Changes with any setting of any member."""
        return content_hash(self.model_dump(mode="json"))

    @property
    def record(self) -> SuiteRecord:
        return SuiteRecord(name=self.name, version=self.version, hash=self.hash)


def suite_for(name: str, norm: Geometry) -> Suite:
    """The suite of that name for a norm, or the one in the YAML file of that path.

    Raises:
        RecipeError: no such name or file, or a suite with a member that does not attack in that norm.
    """
    if name not in get_args(SuiteName):
        return _read_suite(name, norm)
    members = SUITES[name][norm]  # type: ignore[index]  # checked above
    version = NEWER.get((name, norm), VERSION)  # type: ignore[arg-type]  # checked above
    return Suite(name=f"{name}-{norm}", version=version, members=members)


def _read_suite(name: str, norm: Geometry) -> Suite:
    if not name.endswith((".yaml", ".yml")):
        names = ", ".join(get_args(SuiteName))
        raise RecipeError(f"evaluation.suite: no suite {name!r}. Suites: {names}, or the path of a YAML file")
    suite = validate(Suite, read_yaml(Path(name)), name)
    for member in suite.members:
        if norm not in member.geometries:
            raise RecipeError(
                f"{name}: the member {member.name} attacks in {', '.join(member.geometries)}, not in {norm}"
            )
    return suite
