"""Unfreeze schedules: which groups of parameters train in which epochs, as phases.

Add one: a subclass of ``Schedule``, and its name in ``AnySchedule``.
"""

from typing import Annotated

from pydantic import Field

from temper.schedules.base import Phase
from temper.schedules.explicit import Phases, PhaseSpec
from temper.schedules.gradual import Gradual
from temper.schedules.lp_ft import LPFT, RoLI
from temper.schedules.static import Full, HeadOnly, LastK, Twins

AnySchedule = Annotated[
    HeadOnly | Full | LastK | Gradual | LPFT | RoLI | Twins | Phases, Field(discriminator="kind")
]

__all__ = [
    "LPFT",
    "AnySchedule",
    "Full",
    "Gradual",
    "HeadOnly",
    "LastK",
    "Phase",
    "PhaseSpec",
    "Phases",
    "RoLI",
    "Twins",
]
