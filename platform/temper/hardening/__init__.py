"""Hardening methods: an attack, and the training loss that uses it.

Add one: a subclass of ``Adversary``, and its name in ``AnyAdversary``.
"""

from typing import Annotated

from pydantic import Field

from temper.hardening.adversarial import (
    FastTraining,
    FGSMTraining,
    FreeTraining,
    Guard,
    PatchTraining,
    PGDTraining,
)
from temper.hardening.base import Adversary, CrossEntropy
from temper.hardening.eps_schedules import RampEps
from temper.hardening.trades import MART, TRADES

AnyAdversary = Annotated[
    FGSMTraining | FastTraining | FreeTraining | PGDTraining | PatchTraining | TRADES | MART,
    Field(discriminator="kind"),
]

__all__ = [
    "MART",
    "TRADES",
    "Adversary",
    "AnyAdversary",
    "CrossEntropy",
    "FGSMTraining",
    "FastTraining",
    "FreeTraining",
    "Guard",
    "PGDTraining",
    "PatchTraining",
    "RampEps",
]
