"""What verifying a record found."""

from collections.abc import Iterable, Iterator, Mapping
from math import isclose
from typing import Any, Literal

from pydantic import BaseModel

from temper.spec import Spec

SHOWN = 3
"""Problems that a check's detail lists."""
ROUNDING = 1e-9


class Check(Spec):
    """One thing that was checked."""

    name: str
    passed: bool
    detail: str


class VerificationRecord(Spec):
    """Every check of one record."""

    schema_version: Literal[1] = 1
    record: str
    """Its file."""
    name: str
    depth: Literal["shallow", "deep"]
    """``shallow``: files and numbers; ``deep``: with the model, the images and new attacks."""
    checks: list[Check]
    not_checked: list[str]
    """What follows from nothing that was looked at, with the reason."""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def check_of(name: str, problems: Iterable[str], good: str) -> Check:
    """A check that passes where there are no ``problems``."""
    found = list(problems)
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return Check(name=name, passed=not found, detail="; ".join(found[:SHOWN]) + more if found else good)


def differences(path: str, claimed: Any, found: Any, tolerance: float = ROUNDING) -> Iterator[str]:
    """Where ``claimed`` and ``found``, plain data or specs, do not agree; floats up to ``tolerance``."""
    claimed, found = _plain(claimed), _plain(found)
    if isinstance(claimed, dict) and isinstance(found, dict):
        for name in {**claimed, **found}:
            yield from differences(f"{path}.{name}", claimed.get(name), found.get(name), tolerance)
    elif isinstance(claimed, list) and isinstance(found, list) and len(claimed) == len(found):
        for index, (one, other) in enumerate(zip(claimed, found, strict=True)):
            yield from differences(f"{path}.{index}", one, other, tolerance)
    elif not _same(claimed, found, tolerance):
        yield f"{path} is {_short(claimed)} in the record, {_short(found)} was found"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _same(claimed: Any, found: Any, tolerance: float) -> bool:
    if isinstance(claimed, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return isclose(claimed, found, rel_tol=ROUNDING, abs_tol=tolerance)
    return bool(claimed == found) and isinstance(claimed, bool) == isinstance(found, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
