"""Attacks in plain torch: gradients of the images only, or none.

An ``Attack`` is one of training: its threat model stands in the recipe beside it. A ``Member`` is one of a
suite: it is given a threat model with the images.
"""

from temper.attacks.apgd import APGD, GoalAPGD, apgd
from temper.attacks.base import Attack, LogitsFn, attack_mode, kept_statistics
from temper.attacks.channels import attacked_channels, in_colour, is_grey, perturb_channels
from temper.attacks.deepfool import DeepFool
from temper.attacks.draws import PartGenerator, draw_rows
from temper.attacks.fgsm import FGSM, FullFGSM
from temper.attacks.goal_pgd import GoalPGD, MarginPGD
from temper.attacks.last_pgd import LastPGD
from temper.attacks.member import Member, SearchMember, Sees
from temper.attacks.minimum_norm import minimum_norm
from temper.attacks.near_pgd import NearPGD
from temper.attacks.patch import PatchAttack, PatchPGD
from temper.attacks.patch_search import PatchSearch
from temper.attacks.pgd import PGD
from temper.attacks.portions import MOST_PIXELS, cut, fitting, images_at_once, in_portions
from temper.attacks.shrinking import ShrinkingAPGD
from temper.attacks.square import Square

__all__ = [
    "APGD",
    "FGSM",
    "MOST_PIXELS",
    "PGD",
    "Attack",
    "DeepFool",
    "FullFGSM",
    "GoalAPGD",
    "GoalPGD",
    "LastPGD",
    "LogitsFn",
    "MarginPGD",
    "Member",
    "NearPGD",
    "PartGenerator",
    "PatchAttack",
    "PatchPGD",
    "PatchSearch",
    "SearchMember",
    "Sees",
    "ShrinkingAPGD",
    "Square",
    "apgd",
    "attack_mode",
    "attacked_channels",
    "cut",
    "draw_rows",
    "fitting",
    "images_at_once",
    "in_colour",
    "in_portions",
    "is_grey",
    "kept_statistics",
    "minimum_norm",
    "perturb_channels",
]
