"""What to change where a model answers too few images rightly."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from temper.advice.facts import Facts
from temper.advice.losses import HIGH_FRAC, Fall, find_fall, guess_loss, least_loss
from temper.advice.words import assign
from temper.records import AdviceKind, AdviceRecord
from temper.spec import format_ratio

RATE_FACTOR = 3.0
"""Between learning rates that are worth a try."""

FEW_STEPS, ENOUGH_STEPS = (100, 300), (300, 1000)
"""Updates that are too few for anything, and that do on a few hundred images: without attacks, with them."""
EARLY_FRAC = 2 / 3
"""Of the epochs: where the best one is among them, more are not what is missing."""

LEVEL = 0.01
"""The best of many epochs flatters validation a little, so its gap asks for more than the usual 5 %."""
MIN_GAP = 0.03


@dataclass(frozen=True)
class Remedy:
    """A sentence, and the option that does it."""

    words: str
    option: str | None


def advise(kind: AdviceKind, seen: str, remedy: Remedy, values: Mapping[str, float]) -> AdviceRecord:
    """What is seen, and what to change."""
    return AdviceRecord(kind=kind, text=f"{seen} {remedy.words}", option=remedy.option, values=dict(values))


def too_few_epochs(facts: Facts) -> Fall | None:
    """The fall of the training loss, where more epochs are likely to help.

    They are not where the run was ended early, where its best epoch came before its last third, where the
    loss is close to the least there is, or where validation is far above the test: what is learned then does
    not carry over (X-rays in twice as many epochs lost five points, docs/log.md).
    """
    course = facts.course
    fall = None if is_above_test(facts) else find_fall(course.losses)
    if fall is None or course.stopped is not None or _height(facts, fall.after) < HIGH_FRAC:
        return None
    is_late = course.best_epoch is None or course.best_epoch + 1 > EARLY_FRAC * course.num_epochs
    return fall if is_late else None


def is_above_test(facts: Facts) -> bool:
    """Whether validation accuracy is above that on the test images, by more than chance explains.

    Balanced accuracy must fall as well, so that it is not only that the splits share out the classes
    differently.
    """
    found = facts.validation
    if facts.clean is None or found is None:
        return False
    gap_balanced = found.gap if facts.balanced_acc is None else found.balanced_acc - facts.balanced_acc
    return min(found.gap, gap_balanced) >= MIN_GAP and found.p < LEVEL


def longer(facts: Facts) -> Remedy:
    """Twice as many epochs."""
    epochs = facts.setting("epochs") or facts.course.num_epochs
    return Remedy("Train longer.", assign(epochs=2 * int(epochs)))


def more_accuracy(facts: Facts) -> Remedy:
    """For a model with too little clean accuracy, by what its training shows."""
    if not facts.is_ours:
        words = "Check that its classes are in the order of the shards, and that it normalizes inside."
        return Remedy(words, None)
    if (more := _many_more_epochs(facts)) is not None:
        return more
    if too_few_epochs(facts) is not None:
        return longer(facts)
    if facts.is_hardened:
        return weaker_attack(facts)
    losses = facts.course.losses
    if losses and _height(facts, losses[-1]) < HIGH_FRAC:
        return _closer_to_the_start(facts)
    return _other_rate(facts)


def _many_more_epochs(facts: Facts) -> Remedy | None:
    """Where the run had so few steps that no training could have come to anything."""
    course, batch_size = facts.course, facts.setting("data.batch_size")
    if not (course.num_train and course.num_epochs and batch_size) or course.stopped is not None:
        return None
    per_epoch = max(1, sum(course.num_train.values()) // int(batch_size))
    steps, enough = course.num_epochs * per_epoch, ENOUGH_STEPS[facts.is_hardened]
    if steps >= FEW_STEPS[facts.is_hardened]:
        return None
    attacked = " under attack" if facts.is_hardened else ""
    words = f"{course.num_epochs} epochs are {steps} steps{attacked} here; about {enough} are needed."
    return Remedy(words, assign(epochs=-(-enough // per_epoch)))


def weaker_attack(facts: Facts) -> Remedy:
    """Less for the attack in training to take: weighed less, growing slowly, or smaller."""
    adversary = "objective.adversary"
    beta, eps = facts.setting(f"{adversary}.beta"), facts.setting(f"{adversary}.eps")
    if beta is not None and beta > 1:
        words = "Give attacked images less weight against clean ones in training."
        return Remedy(words, assign(objective__adversary__beta=f"{max(1.0, beta / 2):g}"))
    if facts.setting(f"{adversary}.eps_schedule.kind") == "constant":
        words = "Ramp the training attack up from 0 to its full eps."
        return Remedy(words, assign(objective__adversary__eps_schedule__kind="ramp"))
    words = "Train with a smaller eps."
    return Remedy(words, assign(objective__adversary__eps=format_ratio(eps / 2)))


def smaller_eps(eps: float) -> str:
    """Train and evaluate within ``eps``."""
    written = format_ratio(eps)
    return f"{assign(objective__adversary__eps=written)} {assign(threat__eps=written)}"


def even_classes(facts: Facts) -> Remedy | None:
    """Rare classes as often as common ones; ``None`` where that is done already, or not in our hands."""
    if facts.setting("data.sampling") != "uniform" or facts.setting("objective.class_weights") is not None:
        return None
    words = "Balance the classes in training."
    if facts.setting("data.resident") is False:
        return Remedy(words, assign(objective__class_weights="balanced"))
    return Remedy(words, assign(data__sampling="balanced"))


def _closer_to_the_start(facts: Facts) -> Remedy:
    """It fits its training images and no others: change less of what it started with."""
    kind = facts.setting("schedule.kind")
    if kind in ("lp_ft", "roli"):
        factor = facts.setting("schedule.full_lr_factor") or 0.1
        words = "It overfits its training images; stay closer to the initial weights."
        return Remedy(words, assign(schedule__full_lr_factor=f"{factor / RATE_FACTOR:.2g}"))
    if kind == "full":
        words = "It overfits its training images; train the head first, to preserve the initial weights."
        return Remedy(words, assign(schedule__kind="lp_ft"))
    return _other_rate(facts)


def _other_rate(facts: Facts) -> Remedy:
    """The loss is neither falling nor low, so the rate does not fit. A loss that only ever fell, if little,
    speaks for a higher one; else a lower one is tried first.
    """
    rate = facts.setting("optim.lr")
    if not isinstance(rate, int | float):
        return longer(facts)
    if facts.has_auto_lr:
        return Remedy("Measure the learning rate on these images.", assign(optim__lr="auto"))
    losses = facts.course.losses
    only_fell = len(losses) > 1 and all(after < before for before, after in pairwise(losses))
    rates = [f"{one:.2g}" for one in (rate / RATE_FACTOR, min(10.0, rate * RATE_FACTOR))]
    first, second = reversed(rates) if only_fell else rates
    words = f"Try a learning rate other than {rate:g}: {first}, then {second}."
    return Remedy(words, assign(optim__lr=first))


def _height(facts: Facts, loss: float) -> float:
    """``loss`` above the least there is, as a share of a guess's."""
    num_classes = max(2, len(facts.classes))
    smoothing = facts.setting("objective.label_smoothing") or 0.0
    return (loss - least_loss(num_classes, float(smoothing))) / guess_loss(num_classes)
