"""Advice about robust accuracy: of a hardened model alone, and beside its plain one."""

import numpy as np

from temper.advice.facts import Facts, same_images
from temper.advice.remedies import Remedy, advise, longer, smaller_eps, too_few_epochs, weaker_attack
from temper.advice.words import assign, better_than, named, p_value, percent, points
from temper.records import AdviceRecord, CurvePoint
from temper.spec import format_ratio
from temper.statistics import balanced_proportion, paired_balanced_p, pairwise_unpaired_p

LEVEL = 0.05
MIN_ROBUST = 0.05
"""Balanced robust accuracy that is next to none, whatever the number of classes."""
MIN_GAINED = 0.05
"""Points of robust accuracy that hardening is to add."""
MAX_LOST = 0.10
"""Points of clean accuracy that it may take."""


def blocked(facts: Facts) -> AdviceRecord | None:
    """Gates failed, so the robust accuracy says nothing."""
    if not facts.is_blocked:
        return None
    several = len(facts.failed_gates) > 1
    seen = (
        f"The gate{'s' if several else ''} {named(facts.failed_gates)} failed, so the robust accuracy cannot "
        "be trusted."
    )
    remedy = Remedy(f"Do what {'their details say' if several else 'its detail says'} (docs/gates.md).", None)
    if "more steps" in facts.failed_gates and facts.setting("evaluation.suite") == "quick":
        words = "Its attacks have not converged: evaluate again with a stronger suite."
        remedy = Remedy(words, assign(evaluation__suite="standard"))
    return advise("blocked", seen, remedy, {"num_gates": float(len(facts.failed_gates))})


def not_robust(facts: Facts) -> AdviceRecord | None:
    """It knows clean images, but under attack hardly any, or no more than a constant answer."""
    if not facts.is_hardened or facts.is_blocked or facts.threat is None:
        return None
    if facts.answers is None or facts.chance is None or facts.robust is None:
        return None
    value, interval = balanced_proportion(facts.answers.robust, facts.answers.labels)
    knows = balanced_proportion(facts.answers.correct, facts.answers.labels)[1].low > facts.chance
    if not knows or interval.low > max(facts.chance, MIN_ROBUST):
        return None
    values = {"robust_balanced_acc": value, "chance": facts.chance, "robust_acc": facts.robust.value}
    smaller = _holding_point(facts)
    if smaller is not None:
        held = smaller.robust_acc.value
        seen = (
            f"Robust accuracy of the hardened model is {percent(held)} at eps {format_ratio(smaller.eps)}, "
            f"but {percent(facts.robust.value)} at {facts.threat.label}, which is too large for it."
        )
        remedy = Remedy("Harden at the smaller eps first.", smaller_eps(smaller.eps))
        return advise("eps_too_large", seen, remedy, values | {"eps": smaller.eps, "robust_at_eps": held})
    if value > facts.chance and interval.low > facts.chance:
        seen = (
            f"The hardened model's balanced robust accuracy is only {percent(value)} at {facts.threat.label}."
        )
        return advise("not_robust", seen, _of_hardening(facts), values)
    seen = (
        f"Balanced robust accuracy of the hardened model is {percent(value)} at {facts.threat.label}, "
        f"{better_than(value, facts.chance)} a constant answer ({percent(facts.chance)})."
    )
    return advise("not_robust", seen, _of_hardening(facts), values)


def _holding_point(facts: Facts) -> CurvePoint | None:
    """The largest eps of the curve, at most half the threat's, at which the model surely beats a constant."""
    assert facts.threat is not None
    assert facts.largest is not None
    constant = facts.largest[1]
    held = [
        point
        for point in facts.curve
        if 0 < point.eps <= facts.threat.eps / 2 and point.robust_acc.low > max(constant, MIN_ROBUST)
    ]
    return max(held, key=lambda point: point.eps, default=None)


def hardened_near_plain(facts: Facts) -> AdviceRecord | None:
    """Hardening that added less than five points of robust accuracy, or no significant gain."""
    plain = facts.plain
    if plain is None or not facts.is_hardened or facts.is_blocked or plain.is_blocked:
        return None
    if facts.robust_balanced_acc is None or plain.robust_balanced_acc is None or facts.threat is None:
        return None
    gained, p = facts.robust_balanced_acc - plain.robust_balanced_acc, _p_of_pair(facts, plain, "robust")
    if gained >= MIN_GAINED and p < LEVEL:
        return None
    seen = (
        f"Hardening changed balanced robust accuracy at {facts.threat.label} from "
        f"{percent(plain.robust_balanced_acc)} to {percent(facts.robust_balanced_acc)} ({p_value(p)})."
    )
    values = {
        "plain_robust_balanced_acc": plain.robust_balanced_acc,
        "robust_balanced_acc": facts.robust_balanced_acc,
        "p": p,
    }
    return advise("hardened_near_plain", seen, _of_hardening(facts), values)


def clean_lost(facts: Facts) -> AdviceRecord | None:
    """Hardening that cost more than ten points of clean accuracy, with a significant difference."""
    plain = facts.plain
    if plain is None or not facts.is_hardened or facts.balanced_acc is None or plain.balanced_acc is None:
        return None
    lost, p = plain.balanced_acc - facts.balanced_acc, _p_of_pair(facts, plain, "correct")
    if lost <= MAX_LOST or p >= LEVEL:
        return None
    seen = (
        f"Hardening cost {points(lost)} of balanced clean accuracy, from {percent(plain.balanced_acc)} to "
        f"{percent(facts.balanced_acc)} ({p_value(p)})."
    )
    values = {"plain_balanced_acc": plain.balanced_acc, "balanced_acc": facts.balanced_acc, "p": p}
    remedy = longer(facts) if too_few_epochs(facts) is not None else weaker_attack(facts)
    return advise("clean_lost", seen, remedy, values)


def _of_hardening(facts: Facts) -> Remedy:
    """For a model whose training under attack did not take."""
    if too_few_epochs(facts) is not None:
        return longer(facts)
    trains_little = (
        facts.setting("schedule.kind") == "head_only" or facts.setting("model.adapter") is not None
    )
    if trains_little:
        words = "Training few parameters hardens little: train all layers."
        if facts.setting("model.adapter") is not None:
            return Remedy(words, "--set model.adapter=null")
        return Remedy(words, assign(schedule__kind="full"))
    if facts.setting("objective.adversary.eps_schedule.kind") == "constant":
        words = "Ramp the training attack up from 0 to its full eps."
        return Remedy(words, assign(objective__adversary__eps_schedule__kind="ramp"))
    assert facts.threat is not None
    return Remedy("Harden at half the eps first.", smaller_eps(facts.threat.eps / 2))


def _p_of_pair(one: Facts, other: Facts, name: str) -> float:
    """Whether their balanced accuracies differ, image by image; else whether their totals do."""
    pair = same_images(one.answers, other.answers)
    if pair is not None:
        a, b = (getattr(answers, name) for answers in pair)
        return paired_balanced_p(a, b, pair[0].labels)
    field = "clean" if name == "correct" else name
    shares = [getattr(facts, field) for facts in (one, other)]
    if None in shares:
        return 1.0
    counts, totals = (np.array([getattr(share, part) for share in shares]) for part in ("count", "total"))
    return float(pairwise_unpaired_p(counts, totals)[0, 1])
