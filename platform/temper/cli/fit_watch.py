"""What `temper fit` shows while it works: its plan before it begins, and what time is left."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temper.cli.show import console, progress_bar, say, table_of
from temper.formats import percent

if TYPE_CHECKING:
    from temper.fitting import FitPlan, FitWatch, Look
    from temper.records import LedgerRow

TELL_EVERY_S = 30.0


@contextmanager
def watching_fit() -> "Iterator[FitWatch]":
    """Stages and trials as a sweep shows them, the plan before it begins, and what time is left."""
    from temper.cli.watch import watching
    from temper.fitting import FitWatch

    with watching() as shown:
        clock = _Clock()

        def on_result(trial: str, metrics: Mapping[str, Any]) -> None:
            shown.on_result(trial, metrics)
            clock.result(trial, metrics)

        def on_trial(row: "LedgerRow", total: int) -> None:
            clock.ended(row.trial)
            shown.on_trial(row, total)

        def on_stage(stage: str) -> None:
            if stage.startswith("running"):
                clock.start()
            shown.on_stage(stage)

        def on_plan(look: "Look", plan: "FitPlan") -> None:
            clock.plan(plan)
            console.print(_plan_table(look, plan))
            if plan.is_short:
                steps = plan.hardened_epochs * plan.num_batches
                say(
                    f"time is short: {steps} steps under attack may not make the model robust; "
                    f"--minutes {plan.enough_minutes} would be enough"
                )

        watch = replace(shown, on_stage=on_stage, on_result=on_result, on_trial=on_trial)
        with progress_bar("images") as update:
            yield FitWatch(watch, lambda done, total: update(done, total, ""), on_plan)


class _Clock:
    """Tells now and then how far the trainings are, and when all may be done."""

    def __init__(self) -> None:
        self._remaining: Any = None
        self._started = self._told = time.monotonic()

    def plan(self, plan: "FitPlan") -> None:
        from temper.fitting.progress import Remaining

        self._remaining = Remaining(plan)

    def start(self) -> None:
        self._started = self._told = time.monotonic()

    def result(self, trial: str, metrics: Mapping[str, Any]) -> None:
        if self._remaining is None:
            return
        self._remaining.result(trial, float(metrics.get("epoch", 0)))
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            say(f"training {percent(self._remaining.share)} % done, {self._left(now)} left")

    def ended(self, trial: str) -> None:
        if self._remaining is not None:
            self._remaining.ended(trial)

    def _left(self, now: float) -> str:
        from temper.cli.watch import duration

        return f"about {duration(self._remaining.seconds(now - self._started))}"


def _plan_table(look: "Look", plan: "FitPlan") -> Any:
    """What will be done, before it is."""
    start, minutes = plan.start, "{:.1f}".format
    weights = "random weights" if start.weights is None else f"{start.weights} weights"
    sampling = "every class equally often" if look.is_imbalanced else "as they are"
    side = f"{plan.num_slots} at a time" if plan.num_slots > 1 else "one at a time"
    is_grey = look.channels == "grey"
    tested = "all" if plan.test_images is None else str(plan.test_images)
    rows = [
        ["images", f"{look.num_train} training, {look.num_val} validation, {look.num_test} test", ""],
        ["classes", f"{len(look.classes)}, {sampling}", ""],
        ["start", f"{start.backbone}, {weights}, {start.image_size} px", ""],
        *([["attacks", "in grey, as the images are", ""]] if is_grey else []),
        ["plain training", f"{plan.plain_epochs} epochs", minutes(plan.plain_s / 60)],
        [
            f"hardened training x {plan.num_hardened}",
            f"{plan.hardened_epochs} epochs each, {side}",
            minutes(plan.hardened_s / 60),
        ],
        ["evaluation", f"{tested} test images, quick suite", minutes(plan.evaluation_s / 60)],
        ["total", "", minutes(plan.total_s / 60)],
    ]
    return table_of(f"{look.name}: plan", ["what", "how", "minutes"], rows)
