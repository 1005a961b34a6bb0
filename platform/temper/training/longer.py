"""A finished run that is trained longer: what it needs, and what stands in its way."""

from collections.abc import Mapping
from typing import Any

from temper.recipe import Recipe
from temper.records import RunFolder, hashed_part, write_atomic
from temper.spec import dump_yaml, read_yaml
from temper.training.saving import save_state
from temper.training.state import TrainState

ONE_PHASE = ("full", "last_k", "twins")
"""Schedules whose first epochs are the same however many follow."""
NUM_NAMED = 3
"""Fields that differ, as an error names them."""


def differences(run: RunFolder, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (value of the run, value of ``recipe``) of what tells the two experiments apart."""
    theirs, ours = (_flat(hashed_part(one)) for one in (read_yaml(run.recipe), recipe.resolved()))
    return {
        path: (theirs.get(path), ours.get(path))
        for path in [*ours, *(path for path in theirs if path not in ours)]
        if theirs.get(path) != ours.get(path)
    }


def told(found: Mapping[str, tuple[Any, Any]]) -> str:
    """The fields that differ in a few words."""
    parts = [f"{path} is {_short(a)} there and {_short(b)} here" for path, (a, b) in found.items()]
    more = f" and {len(parts) - NUM_NAMED} more" if len(parts) > NUM_NAMED else ""
    return ", ".join(parts[:NUM_NAMED]) + more


def why_not_longer(recipe: Recipe, state: TrainState) -> str | None:
    """Why the run of ``state`` cannot continue to the more epochs of ``recipe``, which is else its own.

    ``None``: its epochs so far are those that a run of ``recipe`` begins with.
    """
    if state.stopped is not None:
        return f"it ended early ({state.stopped})"
    if state.num_epochs >= recipe.epochs:
        return f"it has {state.num_epochs} epochs already"
    if not state.is_settled:
        return f"it is unfinished: resume it with epochs: {state.num_epochs} first"
    bound = [field for field, is_bound in _bound(recipe).items() if is_bound]
    if bound:
        return f"{' and '.join(bound)} depend{'s' if len(bound) == 1 else ''} on the length of the run"
    return None


def lengthen(run: RunFolder, recipe: Recipe, state: TrainState) -> None:
    """Make the finished run in ``run`` an unfinished one of ``recipe``, which has more epochs."""
    update = {"recipe_hash": recipe.hash, "num_epochs": recipe.epochs}
    save_state(run, state.model_copy(update=update))
    # Last: cut short before it, the same command finds its own unfinished run, and writes the recipe.
    write_atomic(run.recipe, dump_yaml(recipe.resolved()))


def _bound(recipe: Recipe) -> dict[str, bool]:
    """Settings whose effect in the first epochs depends on how many follow."""
    optim, objective, adapter = recipe.optim, recipe.objective, recipe.model.adapter
    adversary = objective.adversary
    awp = None if adversary is None else adversary.awp_at(1.0)
    return {
        f"optim.lr_schedule: {optim.lr_schedule}": optim.lr_schedule != "constant",
        "optim.warmup_frac": optim.lr_schedule == "constant" and optim.warmup_frac > 0,
        "optim.lr: auto": optim.lr == "auto",
        "optim.ema_decay: auto": optim.ema_decay == "auto",
        "objective.alpha_schedule": objective.alpha > 0 and objective.alpha_schedule.kind != "constant",
        "objective.adversary.eps_schedule": adversary is not None
        and adversary.eps_schedule.kind != "constant",
        "objective.adversary.awp": awp is not None and awp.start_frac > 0,
        f"schedule: {recipe.schedule.kind}": recipe.schedule.kind not in ONE_PHASE,
        "model.adapter: adalora": adapter is not None and adapter.kind == "adalora",
    }


def _flat(document: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(document, dict) or not document:
        return {path: document}
    return {
        inner: value
        for name, one in document.items()
        for inner, value in _flat(one, f"{path}.{name}" if path else name).items()
    }


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
