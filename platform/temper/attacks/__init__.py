"""Attacks in plain torch: gradients of the images only, or none.

``AnyAttack`` are those that training uses; add one: a file with a subclass of ``Attack``, and its name there.
``AnyStrongAttack`` are those that evaluation adds to them.
"""

from typing import Annotated

from pydantic import Field

from temper.attacks.apgd import APGD, GoalAPGD, apgd
from temper.attacks.ascent import Found
from temper.attacks.base import Attack, LogitsFn, attack_mode, kept_statistics
from temper.attacks.deepfool import DeepFool
from temper.attacks.draws import PartGenerator, draw_rows
from temper.attacks.fgsm import FGSM
from temper.attacks.goal_pgd import GoalPGD, MarginPGD
from temper.attacks.last_pgd import LastPGD
from temper.attacks.losses import LossName, check_loss, smallest_num_classes
from temper.attacks.minimum_norm import minimum_norm
from temper.attacks.near_pgd import NearPGD
from temper.attacks.patch import PatchAttack, PatchPGD
from temper.attacks.patch_search import PatchSearch
from temper.attacks.pgd import PGD
from temper.attacks.portions import MOST_PIXELS, cut, fitting, images_at_once, in_portions
from temper.attacks.shrinking import ShrinkingAPGD
from temper.attacks.square import Square

AnyAttack = Annotated[FGSM | PGD | NearPGD | PatchPGD, Field(discriminator="kind")]
AnyStrongAttack = Annotated[
    APGD
    | GoalAPGD
    | ShrinkingAPGD
    | MarginPGD
    | GoalPGD
    | DeepFool
    | LastPGD
    | Square
    | PatchAttack
    | PatchSearch,
    Field(discriminator="kind"),
]

__all__ = [
    "APGD",
    "FGSM",
    "MOST_PIXELS",
    "PGD",
    "AnyAttack",
    "AnyStrongAttack",
    "Attack",
    "DeepFool",
    "Found",
    "GoalAPGD",
    "GoalPGD",
    "LastPGD",
    "LogitsFn",
    "LossName",
    "MarginPGD",
    "NearPGD",
    "PartGenerator",
    "PatchAttack",
    "PatchPGD",
    "PatchSearch",
    "ShrinkingAPGD",
    "Square",
    "apgd",
    "attack_mode",
    "check_loss",
    "cut",
    "draw_rows",
    "fitting",
    "images_at_once",
    "in_portions",
    "kept_statistics",
    "minimum_norm",
    "smallest_num_classes",
]
