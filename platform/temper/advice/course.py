"""Advice about how training went."""

from temper.advice.facts import Facts
from temper.advice.remedies import Remedy, advise, is_above_test, longer, too_few_epochs
from temper.advice.words import p_value, percent, points
from temper.records import AdviceRecord


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
    """Validation accuracy of the kept epoch above that on the test images, by more than chance explains."""
    found, clean = facts.validation, facts.clean
    if clean is None or found is None or not is_above_test(facts):
        return None
    seen = (
        f"Validation accuracy ({percent(found.acc.value)} of {found.acc.total} images) is "
        f"{points(found.gap)} above test accuracy ({percent(clean.value)} of {clean.total}; "
        f"{p_value(found.p)}): the splits differ, or training images include near-duplicates of validation "
        "images."
    )
    words = "Split by origin (patient, part, place), and check the spread over folds."
    values = {"val_acc": found.acc.value, "test_acc": clean.value, "gap": found.gap, "p": found.p}
    remedy = Remedy(words, "temper crossval RECIPE --folds 5" if facts.is_ours else None)
    return advise("validation_above_test", seen, remedy, values)
