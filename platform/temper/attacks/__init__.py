"""Attacks that training uses: plain torch, gradients of the images only.

Add one: a file with a subclass of ``Attack``, and its name in ``AnyAttack``.
"""

from typing import Annotated

from pydantic import Field

from temper.attacks.base import Attack, LogitsFn, attack_mode, kept_statistics
from temper.attacks.fgsm import FGSM
from temper.attacks.near_pgd import NearPGD
from temper.attacks.pgd import PGD

AnyAttack = Annotated[FGSM | PGD | NearPGD, Field(discriminator="kind")]

__all__ = ["FGSM", "PGD", "AnyAttack", "Attack", "LogitsFn", "NearPGD", "attack_mode", "kept_statistics"]
