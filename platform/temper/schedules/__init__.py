"""Unfreeze schedules: which groups of parameters train in which epochs, as phases.

Add one: a subclass of ``Schedule``, and its name in ``AnySchedule``.
"""

from typing import Annotated

from pydantic import Field

from temper.schedules.base import Phase, Schedule
from temper.schedules.gradual import Gradual
from temper.schedules.lp_ft import LPFT
from temper.schedules.static import Full, HeadOnly, LastK

AnySchedule = Annotated[HeadOnly | Full | LastK | Gradual | LPFT, Field(discriminator="kind")]

__all__ = ["LPFT", "AnySchedule", "Full", "Gradual", "HeadOnly", "LastK", "Phase", "Schedule"]
