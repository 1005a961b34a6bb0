"""Advice about answers to clean images."""

from temper.advice.facts import Facts
from temper.advice.remedies import Remedy, advise, even_classes, more_accuracy, too_few_epochs
from temper.advice.words import better_than, named, p_value, percent, points
from temper.records import AdviceRecord
from temper.statistics import balanced_proportion, mcnemar, paired_balanced_p, wilson

LEVEL = 0.05
WORTH_A_WORD = 0.02
"""Points below the probe that are told, whether or not chance may explain them."""
MAX_RECALL = 0.5
"""A class of which nothing is right counts as never recognised where more than that can be ruled out."""
CONSTANT = 0.9
"""Recall of the largest class from which a model that knows no other answers it nearly always."""
MIN_TRAIN, MIN_TEST = 20, 10
"""Images of a class."""


def worse_than_majority(facts: Facts) -> AdviceRecord | None:
    """No better than a constant answer: in balanced accuracy, or significantly fewer images right."""
    if facts.answers is None or facts.largest is None or facts.chance is None:
        return None
    correct, labels = facts.answers.correct, facts.answers.labels
    label, share = facts.largest
    balanced, interval = balanced_proportion(correct, labels)
    acc, is_largest = float(correct.mean()), labels == label
    p = mcnemar(int((correct & ~is_largest).sum()), int((is_largest & ~correct).sum())).mid
    figures = {"clean_acc": acc, "majority_share": share, "balanced_acc": balanced, "chance": facts.chance}
    constant = f"always answering {named([facts.classes[label]])} gets {percent(share)}"
    if facts.chance < 1 and interval.low <= facts.chance:
        seen = (
            f"Balanced accuracy is {percent(balanced)}, {better_than(balanced, facts.chance)} a guess "
            f"({percent(facts.chance)}); {percent(acc)} of the test images are right, and {constant}."
        )
        is_constant = facts.is_ours and correct[is_largest].mean() >= CONSTANT and share > facts.chance
        remedy = (even_classes(facts) if is_constant else None) or more_accuracy(facts)
        return advise("worse_than_majority", seen, remedy, figures | {"p": p})
    if acc < share and p < LEVEL:
        seen = (
            f"{percent(acc)} of the test images are right, but {constant} ({p_value(p)}); balanced accuracy "
            f"is {percent(balanced)}."
        )
        return advise("worse_than_majority", seen, _for_more_images(facts), figures | {"p": p})
    return None


def _for_more_images(facts: Facts) -> Remedy:
    """For a model that tells classes apart, but with too few images right."""
    remedy = more_accuracy(facts)
    if facts.is_ours and not facts.is_hardened and too_few_epochs(facts) is None:
        words = "If plain accuracy matters more than balanced accuracy, do not balance the classes."
        if facts.setting("data.sampling") == "balanced":
            return Remedy(words, "--set data.sampling=uniform")
        if facts.setting("objective.class_weights") == "balanced":
            return Remedy(words, "--set objective.class_weights=null")
    return remedy


def worse_than_probe(facts: Facts) -> AdviceRecord | None:
    """Below the linear probe on the frozen start: by two points, or significantly."""
    probe, balanced = facts.probe_balanced_acc, facts.balanced_acc
    if probe is None or balanced is None or probe <= balanced:
        return None
    p = None
    if facts.answers is not None and facts.probe_correct is not None:
        p = paired_balanced_p(facts.answers.correct, facts.probe_correct, facts.answers.labels)
    if probe - balanced < WORTH_A_WORD and (p is None or p >= LEVEL):
        return None
    doubt = "" if p is None else f" ({p_value(p)}{', so it may be chance' if p >= LEVEL else ''})"
    seen = (
        f"Balanced accuracy is {percent(balanced)}, {points(probe - balanced)} below a linear probe on the "
        f"frozen start, {percent(probe)}{doubt}."
    )
    values = {"probe_balanced_acc": probe, "balanced_acc": balanced, "gain": balanced - probe}
    return advise("worse_than_probe", seen, _probe_remedy(facts), values | ({} if p is None else {"p": p}))


def _probe_remedy(facts: Facts) -> Remedy:
    """More validation images where they preferred this model to the probe; else as training says."""
    course = facts.course
    preferred = (
        course.val_acc is not None
        and course.probe_val_acc is not None
        and course.val_acc > course.probe_val_acc
    )
    limit = facts.setting("validation.max_images")
    if preferred and isinstance(limit, int) and limit <= course.num_val:
        words = f"It beat the probe on {course.num_val} validation images: validate on all there are."
        return Remedy(words, "--set validation.max_images=null")
    return more_accuracy(facts)


def class_never_right(facts: Facts) -> AdviceRecord | None:
    """Classes of which no test image is right, though enough were there, in a model that knows others."""
    if facts.answers is None or facts.largest is None:
        return None
    correct, labels = facts.answers.correct, facts.answers.labels
    counts = {name: int((labels == label).sum()) for label, name in enumerate(facts.classes)}
    missed = [
        name
        for label, name in enumerate(facts.classes)
        if counts[name] and not correct[labels == label].any() and wilson(0, counts[name]).high < MAX_RECALL
    ]
    if not missed or not correct.any():
        return None
    total = sum(counts[name] for name in missed)
    seen = f"No test image of {named(missed)} is classified correctly ({total} in all)."
    values = {"num_classes": float(len(missed)), "num_images": float(sum(counts[name] for name in missed))}
    return advise("class_never_right", seen, even_classes(facts) or more_accuracy(facts), values)


def few_images(facts: Facts) -> AdviceRecord | None:
    """Classes with too few images to be learned, or to be measured."""
    train = {} if facts.setting("data.shots_per_class") else dict(facts.course.num_train)
    rare = {name: count for name, count in train.items() if count < MIN_TRAIN}
    test: dict[str, int] = {}
    if facts.answers is not None:
        labels = facts.answers.labels
        test = {name: int((labels == label).sum()) for label, name in enumerate(facts.classes)}
    unmeasured = {name: count for name, count in test.items() if count < MIN_TEST}
    if rare:
        remedy, words = even_classes(facts), "Add images of rare classes, or merge them."
        found = Remedy(words, None)
        if remedy is not None:
            found = Remedy(f"{words} {remedy.words}", remedy.option)
        return _few(rare, "training", "to learn a class from", found, MIN_TRAIN)
    if unmeasured:
        return _few(unmeasured, "test", "to measure a class by", _measure_more(facts), MIN_TEST)
    return None


def _few(counts: dict[str, int], split: str, purpose: str, remedy: Remedy, least: int) -> AdviceRecord:
    low, high = min(counts.values()), max(counts.values())
    numbers = str(low) if low == high else f"{low} to {high}"
    names = sorted(counts, key=lambda name: (counts[name], name))
    seen = (
        f"{named(names)} {'have' if len(names) > 1 else 'has'} {numbers} {split} "
        f"image{'' if numbers == '1' else 's'}; even {least} are few {purpose}."
    )
    return advise("few_images", seen, remedy, {f"num_{split}": float(low), "num_classes": float(len(names))})


def _measure_more(facts: Facts) -> Remedy:
    if facts.setting("evaluation.max_images") is not None:
        return Remedy("Evaluate on all test images.", "--set evaluation.max_images=null")
    if facts.is_ours:
        return Remedy("Test on every image by cross-validation.", "temper crossval RECIPE --folds 5")
    return Remedy("Test on more images.", None)
