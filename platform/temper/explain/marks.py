"""How charts show trials: one colour and one shape for each role, percent on the axes."""

import math
from collections.abc import Sequence
from typing import Any, Final

from temper.charts import BLUE, GREEN, ORANGE, PURPLE, RED
from temper.explain.trials import Trial

ROLES: Final = {
    "on the front": (BLUE, "circle"),
    "finished": (ORANGE, "square"),
    "stopped early": (PURPLE, "triangle-down"),
    "failed": (RED, "triangle-up"),
    "diverged": (RED, "triangle-up"),
    "baseline": (GREEN, "diamond"),
}
SUITE: Final = "under the suite"
"""How the models under the whole suite are named beside the validation's roles."""


def role_scales(roles: Sequence[str]) -> dict[str, Any]:
    """``color`` and ``shape`` of the roles that are there, as one legend."""
    look = {**ROLES, SUITE: (RED, "cross")}
    present = [role for role in look if role in roles]
    legend = {"title": None, "columns": 2, "symbolOpacity": 1}
    return {
        "color": {
            "field": "role",
            "type": "nominal",
            "scale": {"domain": present, "range": [look[role][0] for role in present]},
            "legend": legend,
        },
        "shape": {
            "field": "role",
            "type": "nominal",
            "scale": {"domain": present, "range": [look[role][1] for role in present]},
            "legend": legend,
        },
    }


def accuracy_axis(field: str, title: str, values: Sequence[float]) -> dict[str, Any]:
    """A channel for percents, over the range of ``values`` and a little more, within 0..100."""
    low, high = min(values), max(values)
    room = max(0.5, 0.08 * (high - low))
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {
            "domain": [max(0.0, round(low - room, 2)), min(100.0, round(high + room, 2))],
            "nice": False,
            "zero": False,
        },
        "axis": {"tickCount": 6},
    }


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two positive numbers; more of them in less than a decade."""
    few, many = (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    steps = few if high / low >= 5 else many
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step * 10.0**power:.6g}") for power in powers for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def labels(points: Sequence[dict[str, Any]], channels: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers that write trials' names beside their points (``trial``, ``x``, ``y``), towards the middle.

    Names of points that coincide share one label.
    """
    names: dict[tuple[float, float], list[str]] = {}
    for point in points:
        names.setdefault((point["x"], point["y"]), []).append(point["trial"])
    middle = sum(channels["x"]["scale"]["domain"]) / 2
    written: list[dict[str, Any]] = [
        {"x": x, "y": y, "label": ", ".join(sorted(trials))} for (x, y), trials in names.items()
    ]
    layers = [
        {
            "data": {"values": [one for one in written if (one["x"] <= middle) == is_left]},
            "mark": {"type": "text", "align": align, "dx": shift, "dy": -9, "limit": 140},
            "encoding": {**channels, "text": {"field": "label"}},
        }
        for is_left, align, shift in ((True, "left", 9), (False, "right", -9))
    ]
    return with_values(layers)


def with_values(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of ``layers`` that have something to draw."""
    return [layer for layer in layers if layer["data"]["values"]]


def in_percent(value: float) -> float:
    return round(100 * value, 2)


def tooltip(*fields: tuple[str, str]) -> list[dict[str, Any]]:
    """(field, title) pairs."""
    return [{"field": field, "title": title} for field, title in fields]


def describe(trials: Sequence[Trial]) -> str:
    """Which trials a chart shows, for its description."""
    count: dict[str, int] = {}
    for trial in trials:
        count[trial.role] = count.get(trial.role, 0) + 1
    return ", ".join(f"{number} {role}" for role, number in sorted(count.items())) or "no trial"


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
