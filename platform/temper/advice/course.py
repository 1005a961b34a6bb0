"""Advice about how training went."""

import numpy as np

from temper.advice.facts import Facts
from temper.advice.remedies import Remedy, advise, longer, too_few_epochs
from temper.advice.words import p_value, percent, points
from temper.records import AdviceRecord
from temper.statistics import pairwise_unpaired_p

LEVEL = 0.01
"""The best of many epochs flatters validation a little, so this asks for more than the usual 5 %."""
MIN_GAP = 0.03


def loss_still_falling(facts: Facts) -> AdviceRecord | None:
    """The training loss fell to the end, and the kept epoch is in the last third."""
    fall, course = too_few_epochs(facts), facts.course
    if fall is None:
        return None
    total, num = course.num_epochs, fall.num_epochs
    last = "last epoch" if num == 1 else f"last {num} epochs"
    seen = (
        f"The training loss was still falling, by {percent(fall.relative)} over the {last} of {total} "
        f"({fall.before:.3g} to {fall.after:.3g})"
    )
    kept = "." if course.best_epoch is None else f", and epoch {course.best_epoch + 1} was the best."
    values = {"before": fall.before, "after": fall.after, "fall": fall.relative, "epochs": float(total)}
    return advise("loss_still_falling", seen + kept, longer(facts), values)


def validation_above_test(facts: Facts) -> AdviceRecord | None:
    """Validation accuracy of the kept epoch above that on the test images, by more than chance explains.

    Balanced accuracy must fall as well, so that it is not only that the splits share out the classes
    differently.
    """
    course, clean = facts.course, facts.clean
    if clean is None or course.val_acc is None or not course.num_val:
        return None
    right = round(course.val_acc * course.num_val)
    gap = right / course.num_val - clean.value
    p = float(
        pairwise_unpaired_p(np.array([right, clean.count]), np.array([course.num_val, clean.total]))[0, 1]
    )
    if facts.balanced_acc is not None and course.val_balanced_acc is not None:
        gap_balanced = course.val_balanced_acc - facts.balanced_acc
    else:
        gap_balanced = gap
    if gap < MIN_GAP or gap_balanced < MIN_GAP or p >= LEVEL:
        return None
    seen = (
        f"Validation accuracy ({percent(course.val_acc)} of {course.num_val} images) is {points(gap)} above "
        f"test accuracy ({percent(clean.value)} of {clean.total}; {p_value(p)}): the splits differ, or "
        "training images include near-duplicates of validation images."
    )
    words = "Split by origin (patient, part, place), and check the spread over folds."
    values = {"val_acc": course.val_acc, "test_acc": clean.value, "gap": gap, "p": p}
    remedy = Remedy(words, "temper crossval RECIPE --folds 5")
    return advise("validation_above_test", seen, remedy, values)
