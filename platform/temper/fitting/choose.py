"""Measuring what there is to start from, and choosing by it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.cluster.resources import max_concurrent
from temper.cluster.runtime import start_ray
from temper.data import Fit, ShardSet
from temper.errors import ModelError, TrainingError
from temper.fitting.documents import batch_size, fit_document, num_points
from temper.fitting.look import Look
from temper.fitting.measure import measure
from temper.fitting.plan import MEASURING_SHARE, FitPlan, Load, Measured, choose_plan, make_plan, needed_s
from temper.fitting.request import FitRequest
from temper.fitting.starts import Start, find_starts
from temper.models import build_model
from temper.recipe import WorkersSpec, build_recipe

MAX_VALIDATED = 300
"""Images, as in the recipe."""
FITS: tuple[Fit, ...] = ("pad", "stretch")
"""Ways to make images square that lose nothing of them."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """The images of a fit, opened."""

    request: FitRequest
    look: Look
    shards: Path
    source: Path | None

    def open(self) -> dict[str, ShardSet]:
        """By task."""
        opened = {"target": ShardSet.open(self.shards)}
        return opened if self.source is None else {**opened, "source": ShardSet.open(self.source)}

    def document(self, start: Start, image_size: int, fit: Fit = "pad") -> dict[str, Any]:
        """The recipe with this network, but for its epochs."""
        return fit_document(
            self.request,
            self.look,
            self.shards,
            self.source,
            backbone=start.backbone,
            weights=start.weights,
            image_size=image_size,
            fit=fit,
        )


def choose(material: Material, started: float, say: Say, *, verbose: bool = False) -> FitPlan:
    """Measure the starts in turn, and plan with the best one. ``started``: of the fit, by ``time.monotonic``.

    Raises:
        UsageError: no such backbone.
        ModelError: nothing that can be started from.
        TrainingError: the time is too short for an epoch.
    """
    request = material.request
    starts = find_starts(request, material.look.long_side)
    _check(material, starts)
    start_ray(verbose=verbose)
    load = load_of(material, max_concurrent(WorkersSpec()))
    deadline = started + 60 * request.minutes
    say(_announced(request, starts, material.look))
    measured = _measure(material, starts, load, started, say)
    left = deadline - time.monotonic()
    plan = choose_plan(measured, load, left)
    if plan is None:
        spent = time.monotonic() - started
        minutes = math.ceil(1.1 * (spent + needed_s(measured, load)) / 60)
        names = ", ".join(dict.fromkeys(one.label for one in measured))
        raise TrainingError(
            f"--minutes {request.minutes:g}: too short for one epoch of {names} on these images; about "
            f"{max(minutes, math.floor(request.minutes) + 1)} minutes are needed, or a smaller --size or "
            "--backbone"
        )
    return plan


def _check(material: Material, starts: Sequence[Start]) -> None:
    """Refuse what cannot be meant, before Ray is started and weights are read.

    Raises:
        ModelError: the network that was asked for needs images of another size.
    """
    for start in starts:
        recipe = build_recipe(material.document(start, start.sizes[0]))
        if material.request.backbone is not None:
            bare = recipe.model.model_copy(update={"weights": None})
            classes = {"target": list(material.look.classes)}
            build_model(bare, classes, image_size=recipe.data.image_size, seed=recipe.seed)


def load_of(material: Material, num_slots: int) -> Load:
    """How much there is to do."""
    look = material.look
    size = batch_size(look.num_train)
    return Load(
        num_batches=max(1, look.num_train // size),
        num_val=min(look.num_val, MAX_VALIDATED),
        num_test=look.num_test,
        num_classes=len(look.classes),
        num_slots=num_slots,
        max_hardened=num_points(material.source is not None),
    )


def _measure(
    material: Material, starts: Sequence[Start], load: Load, started: float, say: Say
) -> list[Measured]:
    """As many of the starts as there is time for, each from its smallest size on."""
    shards = material.open()
    limit = started + MEASURING_SHARE * 60 * material.request.minutes
    measured: list[Measured] = []
    problems: list[str] = []
    for start in starts:
        before: Measured | None = None
        fits = ("pad",) if material.look.is_square or start.weights is None else FITS
        for size in start.sizes:
            label = f"{start.backbone} at {size} px"
            if measured and time.monotonic() > limit:
                say(f"{label}: not measured: no time left")
                continue
            if before is not None and not _is_worth_it(before, size, material, load):
                say(f"{label}: not measured: its steps would take too long")
                continue
            try:
                before = best_fit(material, start, size, fits, shards)
            except ModelError as problem:
                problems.append(f"{label}: cannot be used as a start ({problem})")
                continue
            fits = (before.fit,)
            measured.append(before)
            say(_described(before))
            if before.score is None and make_plan(before, load, _seconds(material, started)) is not None:
                return measured
    if not measured:
        raise ModelError(problems[0])
    for told in problems:
        say(told)
    return measured


def best_fit(
    material: Material, start: Start, size: int, fits: Sequence[Fit], shards: Mapping[str, ShardSet]
) -> Measured:
    """Of the ways to make images square the one whose features know more.

    Raises:
        ModelError: weights that cannot be used.
    """
    is_balanced = material.look.is_imbalanced
    found = [measure(material.document(start, size, fit), shards, is_balanced=is_balanced) for fit in fits]
    return max(found, key=lambda one: one.score or 0.0)


def _seconds(material: Material, started: float) -> float:
    return started + 60 * material.request.minutes - time.monotonic()


def _is_worth_it(before: Measured, size: int, material: Material, load: Load) -> bool:
    """Whether the same network could be trained at ``size``, whose pixels take their share of time."""
    factor = (size / before.image_size) ** 2
    times = {name: factor * getattr(before, name) for name in ("step_s", "attacked_step_s", "pass_s")}
    expected = before.model_copy(update={**times, "image_size": size})
    return choose_plan([expected], load, 60 * material.request.minutes) is not None


def _announced(request: FitRequest, starts: Sequence[Start], look: Look) -> str:
    if starts[0].weights is None and request.backbone is not None:
        return f"{starts[0].backbone} starts from random weights; images have {look.long_side} px"
    if starts[0].weights is None:
        return (
            f"no pretrained weights found (`temper models` lists what you can install): "
            f"{starts[0].backbone} starts from random weights, which needs more images and reaches less"
        )
    names = ", ".join(start.backbone for start in starts)
    return f"measuring networks to start from: {names}; images have {look.long_side} px"


def _described(one: Measured) -> str:
    probe = "" if one.score is None else f"linear probe {100 * one.score:.1f} % (cross-validated), "
    attacked = f"{1000 * one.attacked_step_s:.0f} ms under attack"
    return f"{one.label}: {probe}{1000 * one.step_s:.0f} ms a step, {attacked}"
