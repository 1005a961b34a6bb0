"""From measured times to epochs, trials and images: what fits into the minutes. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from temper.data import Fit
from temper.fitting.slots import makespan, most_that_fits
from temper.spec import Spec

BATCH_SIZE = 32
PLAIN_STEPS, HARDENED_STEPS = 600, 1500
"""Steps after which more gain little."""
STEPS_PER_CLASS = 60
"""Of a training without attacks, where classes are many: twenty road signs gained two points from them."""
ENOUGH_STEPS = 1000
"""Of a hardened training, below which time goes into longer trainings, and above into more of them."""
MIN_STEPS = 800
"""Of a training under attack, below which another network or size is taken, if there is one that fits."""
EQUAL_SCORES = 0.03
"""Accuracy 0..1 within which probes differ by chance on a few hundred images."""
MAX_EPOCHS = 150
"""Of a training: of 300 images it is what `ENOUGH_STEPS` take."""
PLAIN_VALIDATIONS, HARDENED_VALIDATIONS = 4, 8
"""How often a whole training is validated."""
MEASURING_SHARE = 0.15
"""Of the time, after which nothing more is measured."""
EVALUATION_SHARE = 0.25
"""Of the time."""
PLAIN_SHARE = 0.3
"""Of the time for trainings that the one without attacks takes at most, on one core."""
EVALUATION_PASSES = (80, 30, 20)
"""Of an image, forward and backward: ``quick`` and its gates, on the hardened model, and on the plain one and
the probe, which fall to the first attacks."""
FEWEST_TESTED = 100
"""Images to evaluate on, at least: with fewer the intervals say nothing."""
CROWD = 1.25
"""Times longer that a step takes beside another on the same memory."""
RATE_TEST = 1.05
"""Times longer that a training takes that measures its learning rate first."""
EPOCH_S, TRIAL_S, FIT_S = 0.2, 6.0, 15.0
"""What an epoch, a process, and a fit take beside their steps."""
LATE, LATE_S = 1.3, 240.0
"""Times the planned time that trainings may take before they are ended, and seconds more at least."""
VALIDATION_STEPS = 3
"""Of PGD, as in the recipe."""


class Measured(Spec):
    """A network at a size: how much its features know, and what its steps take."""

    backbone: str
    weights: str | None
    image_size: int
    fit: Fit = "pad"
    """How images that are not square become so."""
    score: float | None = None
    """Accuracy 0..1 of the linear probe on images that it was not fitted to; ``None`` at random weights."""
    step_s: float
    """A step of a batch, without attacks."""
    attacked_step_s: float
    pass_s: float
    """An image, forward and backward, as attacks take it."""

    @property
    def label(self) -> str:
        fitted = "" if self.fit == "pad" else " (stretched)"
        return f"{self.backbone} at {self.image_size} px{fitted}"


@dataclass(frozen=True)
class Load:
    """How much there is to do, whatever the network."""

    num_batches: int
    """Of an epoch."""
    num_val: int
    """Images that are validated on."""
    num_test: int
    num_classes: int
    num_slots: int
    """Trainings that run at the same time."""
    max_hardened: int
    """Hardened trainings that the search space offers."""


class FitPlan(Spec):
    """What is going to be trained, and how long it takes."""

    start: Measured
    plain_epochs: int
    hardened_epochs: int
    num_hardened: int
    num_slots: int
    num_batches: int
    plain_s: float
    hardened_s: float
    """Each of them."""
    sweep_s: float
    """All of them, side by side."""
    evaluation_s: float
    test_images: int | None = None
    """``None``: all of them."""
    max_sweep_s: float
    """Time after which no training goes on: longer than planned, for a machine may become slower."""

    @property
    def total_s(self) -> float:
        return self.sweep_s + self.evaluation_s

    @property
    def is_short(self) -> bool:
        """Whether more time would give longer trainings."""
        steps = self.hardened_epochs * self.num_batches
        return steps < ENOUGH_STEPS and self.hardened_epochs < MAX_EPOCHS

    @property
    def enough_minutes(self) -> int:
        """About what it all needs on this machine for ``ENOUGH_STEPS`` steps of hardening."""
        factor = max(1.0, ENOUGH_STEPS / (self.hardened_epochs * self.num_batches))
        more = (factor - 1) * self.hardened_s / (1 - EVALUATION_SHARE)
        return math.ceil((self.total_s + more) / (1 - MEASURING_SHARE) / 60)

    def every_epochs(self, is_hardened: bool) -> int:
        """How often a training is validated."""
        epochs = self.hardened_epochs if is_hardened else self.plain_epochs
        return validated_every(epochs, is_hardened=is_hardened)


def make_plan(start: Measured, load: Load, seconds: float, *, min_steps: int = 1) -> FitPlan | None:
    """The best use of ``seconds``; ``None`` where they are too short for ``min_steps`` steps."""
    evaluation_s, test_images = plan_evaluation(start, load, seconds)
    room = seconds - evaluation_s - FIT_S
    plain = _plain_epochs(start, load, room)
    enough = epochs_of(ENOUGH_STEPS, load.num_batches)
    least = epochs_of(min_steps, load.num_batches)
    for count in range(load.max_hardened, 0, -1):
        epochs = _hardened_epochs(start, load, room, plain, count)
        if epochs >= (enough if count > 1 else least):
            break
    else:
        return None
    plain_s = training_s(start, load, plain, is_hardened=False)
    hardened_s = training_s(start, load, epochs, is_hardened=True)
    return FitPlan(
        start=start,
        plain_epochs=plain,
        hardened_epochs=epochs,
        num_hardened=count,
        num_slots=load.num_slots,
        num_batches=load.num_batches,
        plain_s=plain_s,
        hardened_s=hardened_s,
        sweep_s=FIT_S + makespan([plain_s] + count * [hardened_s], load.num_slots),
        evaluation_s=evaluation_s,
        test_images=test_images,
        max_sweep_s=max(LATE * (seconds - evaluation_s), seconds - evaluation_s + LATE_S),
    )


def choose_plan(measured: Sequence[Measured], load: Load, seconds: float) -> FitPlan | None:
    """Of the networks that have time for a training worth the name the one whose probe is best, or else the
    first that fits at all. ``None``: none does.

    Of those whose probes are equal (``EQUAL_SCORES``) the one with the faster steps wins.
    """
    for min_steps in (MIN_STEPS, 1):
        plans = [
            plan
            for one in measured
            if (plan := make_plan(one, load, seconds, min_steps=min_steps)) is not None
        ]
        if plans:
            best = max(_score(plan) for plan in plans)
            equals = [plan for plan in plans if _score(plan) >= best - EQUAL_SCORES]
            scored = all(plan.start.score is not None for plan in equals)
            return min(equals, key=lambda plan: plan.start.attacked_step_s) if scored else equals[0]
    return None


def needed_s(measured: Sequence[Measured], load: Load) -> float:
    """The time that the fastest of the networks needs for an epoch of each kind."""
    needs = []
    for one in measured:
        times = [training_s(one, load, 1, is_hardened=is_hardened) for is_hardened in (False, True)]
        fewest = min(FEWEST_TESTED, load.num_test)
        needs.append(FIT_S + makespan(times, load.num_slots) + _evaluation_s(one, load, fewest))
    return min(needs)


def plan_evaluation(start: Measured, load: Load, seconds: float) -> tuple[float, int | None]:
    """The time that evaluation takes, and the test images that it has time for (``None``: all)."""
    whole = _evaluation_s(start, load, load.num_test)
    if whole <= EVALUATION_SHARE * seconds:
        return whole, None
    images = max(int(load.num_test * EVALUATION_SHARE * seconds / whole), FEWEST_TESTED)
    return _evaluation_s(start, load, min(images, load.num_test)), images if images < load.num_test else None


def training_s(start: Measured, load: Load, epochs: int, *, is_hardened: bool) -> float:
    """Of a whole run: its steps, its validations, and what it takes to begin."""
    slower = (CROWD if load.num_slots > 1 else 1.0) * (1.0 if start.weights is None else RATE_TEST)
    step_s = start.attacked_step_s if is_hardened else start.step_s
    validations = math.ceil(epochs / validated_every(epochs, is_hardened=is_hardened))
    validation_s = load.num_val * (VALIDATION_STEPS + 1) * start.pass_s
    computing_s = slower * (epochs * load.num_batches * step_s + validations * validation_s)
    return computing_s + epochs * EPOCH_S + TRIAL_S


def validated_every(epochs: int, *, is_hardened: bool) -> int:
    """Epochs between two validations."""
    return max(1, math.ceil(epochs / (HARDENED_VALIDATIONS if is_hardened else PLAIN_VALIDATIONS)))


def epochs_of(steps: int, num_batches: int) -> int:
    """Whole epochs with at least so many steps."""
    return min(MAX_EPOCHS, max(1, math.ceil(steps / num_batches)))


def _plain_epochs(start: Measured, load: Load, room: float) -> int:
    share = PLAIN_SHARE * room * min(load.num_slots, 2)
    steps = min(HARDENED_STEPS, max(PLAIN_STEPS, STEPS_PER_CLASS * load.num_classes))
    return (
        most_that_fits(
            epochs_of(steps, load.num_batches),
            lambda epochs: training_s(start, load, epochs, is_hardened=False) <= share,
        )
        or 1
    )


def _hardened_epochs(start: Measured, load: Load, room: float, plain: int, count: int) -> int:
    """The most epochs that ``count`` hardened trainings have room for beside the plain one; 0: none."""
    plain_s = training_s(start, load, plain, is_hardened=False)

    def fits(epochs: int) -> bool:
        hardened_s = training_s(start, load, epochs, is_hardened=True)
        return makespan([plain_s] + count * [hardened_s], load.num_slots) <= room

    return most_that_fits(epochs_of(HARDENED_STEPS, load.num_batches), fits)


def _evaluation_s(start: Measured, load: Load, images: int) -> float:
    crowd = CROWD if load.num_slots > 1 else 1.0
    times = [TRIAL_S + crowd * images * passes * start.pass_s for passes in EVALUATION_PASSES]
    return makespan(times, load.num_slots)


def _score(plan: FitPlan) -> float:
    return -1.0 if plan.start.score is None else plan.start.score
