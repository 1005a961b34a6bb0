"""Recipes in a few words; they may be of another version, so nothing in them is relied on."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from temper.records import EvaluationRecord
from temper.spec import format_ratio

SCHEDULE_FIELDS = {
    "last_k": "k",
    "gradual": "epochs_per_group",
    "lp_ft": "head_frac",
    "roli": "head_frac",
    "phases": "phases",
}
LARGEST = 1e12
"""Above it, or not a number: nothing that a recipe means."""
SCHEDULES = {
    "full": "all layers from the start",
    "head_only": "the head alone",
    "last_k": "the last layer groups",
    "gradual": "one layer group after the other, from the head down",
    "lp_ft": "first the head, then all layers",
    "roli": "first the head, hardened, then all layers",
    "twins": "twins, one with frozen BatchNorm statistics",
}
ADVERSARIES = {
    "patch": "adversarial patches at random places",
    "fgsm": "FGSM, one step",
    "fast": "fast adversarial training, one step",
    "free": "free adversarial training",
    "pgd": "PGD",
    "trades": "TRADES",
    "mart": "MART",
}


def describe_schedule(schedule: Any) -> str:
    """``gradual(1)`` from ``{kind: gradual, epochs_per_group: 1}``."""
    if not isinstance(schedule, dict):
        return "unknown"
    kind = str(schedule.get("kind", "unknown"))
    value = schedule.get(SCHEDULE_FIELDS.get(kind, ""))
    if isinstance(value, list):
        value = len(value)
    number = _number(value)
    return kind if number is None else f"{kind}({number:g})"


def describe_baseline(recipe: dict[str, Any]) -> str | None:
    """``linear probe`` where a recipe fits a head to a start that has learned something, and does no more."""
    model = _mapping(recipe.get("model"))
    has_start = bool(model.get("weights") or recipe.get("pretrain"))
    is_head = _mapping(recipe.get("schedule")).get("kind") == "head_only" and not model.get("adapter")
    return "linear probe" if has_start and is_head and adversary_of(recipe) == "none" else None


def describe_adversary(adversary: Any) -> str:
    """``pgd 8/255`` from a recipe's adversary, ``trades+awp l2 0.5``; ``none`` where there is none."""
    if not isinstance(adversary, dict) or not _number(adversary.get("eps")):
        return "none"
    awp = "+awp" if adversary.get("awp") else ""
    is_said = adversary.get("norm", "linf") in ("linf", adversary.get("kind"))
    norm = "" if is_said else f" {adversary['norm']}"
    return f"{adversary.get('kind', '?')}{awp}{norm} {format_ratio(float(adversary['eps']))}"


def describe_method(record: EvaluationRecord) -> str:
    """What was done to make the model, in a sentence."""
    recipe, backbone = record.recipe, record.model.backbone
    objective = _mapping(recipe.get("objective"))
    if not objective:
        return f"{backbone}, trained elsewhere; temper only evaluated it."
    kind = str(_mapping(recipe.get("schedule")).get("kind", ""))
    what = f" ({SCHEDULES[kind]})" if kind in SCHEDULES else ""
    trains = f"its {record.model.adapter} adapter" if record.model.adapter else "its weights"
    parts = [
        f"{backbone}, transferred to {record.data.name} by training {trains} with the schedule "
        f"{describe_schedule(recipe.get('schedule'))}{what}",
        _hardening(objective.get("adversary")),
    ]
    alpha = _number(objective.get("alpha"))
    if alpha and record.source is not None:
        parts.append(f"with weight {alpha:.3g} on the loss of the source task {record.source.name}")
    return ", ".join(parts) + "."


def _hardening(adversary: Any) -> str:
    if describe_adversary(adversary) == "none":
        return "not hardened"
    name = ADVERSARIES.get(str(adversary.get("kind")), str(adversary.get("kind")))
    norm, eps = str(adversary.get("norm", "linf")).capitalize(), format_ratio(float(adversary["eps"]))
    awp = " and weight perturbation (AWP)" if adversary.get("awp") else ""
    return f"hardened with {name}{awp} within {norm} {eps}"


def describe_command(record: EvaluationRecord) -> list[str]:
    """The commands that make and check the model again, from the folder of its record."""
    if record.recipe.get("objective"):
        return ["temper train recipe.yaml --out again", "temper verify ."]
    place = " ".join(
        f"--{name} {shlex.quote(str(value))}"
        for name, value in (
            ("data", record.recipe.get("shards", "SHARDS")),
            ("size", record.data.image_size),
            ("eps", format_ratio(record.threat.eps)),
            ("norm", record.threat.norm),
        )
    )
    place += " --set threat.channels=grey" * record.threat.is_grey
    model = shlex.quote(str(record.recipe.get("model") or "MODULE:FUNCTION"))
    return [f"temper evaluate {model} {place} --out again", f"temper verify . --model {model}"]


def dotted(value: Any, path: str = "") -> Iterator[str]:
    """``objective.alpha=0.3`` and so on, as ``--set`` takes them; a thousand recipes as YAML take 5 s."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from dotted(inner, f"{path}.{name}" if path else str(name))
    else:
        yield f"{path}={json.dumps(value, ensure_ascii=False)}"


def alpha_of(recipe: dict[str, Any]) -> float | None:
    """The weight of the source, where the recipe has one."""
    return _number(_mapping(recipe.get("objective")).get("alpha"))


def adversary_of(recipe: dict[str, Any]) -> str:
    return describe_adversary(_mapping(recipe.get("objective")).get("adversary"))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < LARGEST else None
