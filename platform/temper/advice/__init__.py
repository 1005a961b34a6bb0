"""Advice where a result is bad: what is seen, and which option to change.

Pure functions of plain facts; neither torch nor ray is imported.
"""

from dataclasses import replace

from temper.advice.clean import class_never_right, few_images, worse_than_majority, worse_than_probe
from temper.advice.course import loss_still_falling, validation_above_test
from temper.advice.facts import Answers, Course, Facts
from temper.advice.robust import blocked, clean_lost, hardened_near_plain, not_robust
from temper.records import AdviceRecord

__all__ = ["Answers", "Course", "Facts", "advise_on_pair", "give_advice"]

RULES = (
    blocked,
    worse_than_majority,
    worse_than_probe,
    validation_above_test,
    loss_still_falling,
    class_never_right,
    few_images,
    not_robust,
    hardened_near_plain,
    clean_lost,
)
"""In the order in which their advice is given."""
COVERED = {"class_never_right": "worse_than_majority", "hardened_near_plain": "not_robust"}
"""Kinds that say nothing new beside another one."""


def give_advice(facts: Facts) -> list[AdviceRecord]:
    """What is bad about a model, worst first; empty where nothing is. The same facts give the same advice."""
    found = [advice for rule in RULES if (advice := rule(facts)) is not None]
    kinds = {advice.kind for advice in found}
    return [advice for advice in found if COVERED.get(advice.kind) not in kinds]


def advise_on_pair(plain: Facts, hardened: Facts) -> list[AdviceRecord]:
    """What is bad about a hardened model beside the plain one of the same task, on the same test images."""
    beside = replace(hardened, plain=plain)
    return [advice for rule in (hardened_near_plain, clean_lost) if (advice := rule(beside)) is not None]
