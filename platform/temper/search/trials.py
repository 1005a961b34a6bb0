"""From a point of the space to a trial: a whole recipe, validated."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from temper.errors import RecipeError, SearchSpaceError
from temper.recipe import Recipe, build_recipe
from temper.search.points import BASELINE, Point, grid_points, random_points
from temper.search.space import SearchSpace

NUM_PROBES = 32
"""Points of a space that chooses its own as it goes, to see before the start that they are recipes."""

SHARED = ("data", "workers")
"""What the trials of a sweep have in common."""


@dataclass(frozen=True)
class Trial:
    """One trial to run."""

    trial: str
    overrides: dict[str, Any]
    recipe: Recipe


def build_trial(document: Mapping[str, Any], overrides: Mapping[str, Any], number: int, where: str) -> Trial:
    """The trial at one point.

    Raises:
        SearchSpaceError: the point is no recipe; the message names ``where`` and the dotted path.
    """
    try:
        recipe = build_recipe(document, overrides, f"{where}: trial {number}")
    except RecipeError as problem:
        raise SearchSpaceError(str(problem)) from None
    return Trial(f"{number:03d}", dict(overrides), recipe)


def build_trials(space: SearchSpace, document: Mapping[str, Any], where: str) -> list[Trial]:
    """Every trial of a random or grid search, validated before anything is started; no recipe comes twice.

    There are fewer than ``samples`` where the space holds no more.

    Raises:
        SearchSpaceError: a point that is no recipe, or no point that satisfies the constraints.
    """
    candidates: Iterable[Iterable[Point]] = (
        ([point] for point in grid_points(space)) if space.search == "grid" else random_points(space)
    )
    trials = list(_distinct(space, document, where, candidates))
    if not trials:
        raise SearchSpaceError(f"{where}: no point satisfies the constraints: {'; '.join(space.constraints)}")
    return trials


def _distinct(
    space: SearchSpace, document: Mapping[str, Any], where: str, candidates: Iterable[Iterable[Point]]
) -> Iterator[Trial]:
    """Of each trial's candidates the first that is allowed and new."""
    seen: set[str] = set()
    tried: list[Point] = []
    number = 0
    for points in candidates:
        for overrides in points:
            if overrides in tried:
                continue
            tried.append(overrides)
            trial = build_trial(document, overrides, number, where)
            if trial.recipe.hash in seen or broken_rule(space, trial.recipe) is not None:
                continue
            seen.add(trial.recipe.hash)
            yield trial
            number += 1
            break


def broken_rule(space: SearchSpace, recipe: Recipe) -> str | None:
    """The first constraint that ``recipe`` breaks, with its values."""
    if not space.constraints:
        return None
    resolved = recipe.resolved()
    return next((rule.explain(resolved) for rule in space.rules if not rule.holds(resolved)), None)


def baseline_trial(space: SearchSpace, document: Mapping[str, Any], where: str) -> Trial | None:
    """The run beside the search, where the space asks for one.

    Raises:
        SearchSpaceError: it is no recipe.
    """
    if space.baseline is None:
        return None
    try:
        recipe = build_recipe(document, space.baseline, f"{where}: baseline")
    except RecipeError as problem:
        raise SearchSpaceError(str(problem)) from None
    return Trial(BASELINE, space.baseline, recipe)


def group_of(recipe: Recipe, sweep: str) -> str:
    """The tracking group of the trials of the sweep in a folder of this name."""
    asked = recipe.tracking.group or os.environ.get("WANDB_RUN_GROUP")
    return asked or (sweep if sweep.startswith(recipe.name) else f"{recipe.name}-{sweep}")


def check_space(space: SearchSpace, document: Mapping[str, Any], where: str) -> list[Trial]:
    """Trials that stand for the whole space: all of them, or, where they are chosen on the way, a sample.

    Raises:
        SearchSpaceError: one of them is no recipe, or cannot be compared with the others.
    """
    if space.search in ("tpe", "nsga2"):
        probes = space.model_copy(update={"search": "random", "samples": NUM_PROBES})
        trials = build_trials(probes, document, where)
    else:
        trials = build_trials(space, document, where)
    for trial in trials:
        check_trial(space, trial.recipe, trials[0].recipe)
    baseline = baseline_trial(space, document, where)
    if baseline is not None:
        check_trial(space, baseline.recipe, trials[0].recipe)
    return trials


def check_trial(space: SearchSpace, recipe: Recipe, first: Recipe) -> None:
    """Refuse a trial that cannot be compared with the others.

    Raises:
        SearchSpaceError: other data or workers, or a metric that it does not measure in time.
    """
    for name in SHARED:
        if getattr(recipe, name) != getattr(first, name):
            raise SearchSpaceError(f"parameters: a sweep cannot vary '{name}', which its trials share")
    if recipe.workers.is_elastic:
        raise SearchSpaceError(
            "workers.num_workers: a smallest and a largest number are for a single run; trials share the "
            "cluster, so give one number"
        )
    for metric in space.all_objectives:
        if "robust" in metric and recipe.validation.steps == 0:
            raise SearchSpaceError(f"metric: validation.steps: 0 steps measure no {metric}")
        if "source" in metric and recipe.data.source is None:
            raise SearchSpaceError(f"objectives: {metric} needs data.source")
    if space.scheduler is not None and recipe.validation.is_asynchronous:
        raise SearchSpaceError(
            f"scheduler: {space.scheduler.kind} compares trials after each epoch, and "
            "validation.is_asynchronous: true answers later; set one of them to null or false"
        )
    if space.scheduler is not None and space.scheduler.kind == "pbt" and recipe.workers.max_workers > 0:
        raise SearchSpaceError(
            "scheduler: pbt hands weights from trial to trial, which needs trials in their own process; "
            "set workers.num_workers: 0"
        )
