"""Charts of what decides, of alpha, and of what trials cost."""

from collections.abc import Sequence
from typing import Any, Final

from temper.charts import BLUE, GREEN, Chart
from temper.explain.gather import ROBUST, SOURCE
from temper.explain.marks import accuracy_axis, in_percent, log_ticks, role_scales, tooltip, with_values
from temper.explain.trials import Trial, short_names
from temper.tradeoff import Importance

ALPHA: Final = "objective.alpha"
MAX_BARS: Final = 60


def importance_chart(found: Importance, metric: str) -> Chart | None:
    """A bar for each parameter that varies, with its standard error."""
    if not found.parameters:
        return None
    names = short_names([one.name for one in found.parameters])
    bars = [
        {
            "name": names[one.name],
            "path": one.name,
            "share": round(one.share, 4),
            "low": round(one.share - one.error, 4),
            "high": round(one.share + one.error, 4),
        }
        for one in found.parameters
    ]
    told = ", ".join(f"{names[one.name]} {one.share:.2f}" for one in found.parameters)
    return Chart(
        {"data": {"values": bars}, "layer": _importance_layers(bars), "height": 36 * len(bars)},
        title=f"Importance of each parameter for {metric}",
        description=f"Importance, largest first: {told}.",
    )


def _importance_layers(bars: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    place = {"field": "name", "type": "nominal", "sort": [bar["name"] for bar in bars], "title": None}
    title = "increase in squared error, as a share of the metric's variance"
    shown = tooltip(
        ("path", "parameter"), ("share", "share"), ("low", "minus one error"), ("high", "plus one error")
    )
    return [
        {
            "mark": {"type": "bar", "color": BLUE, "height": {"band": 0.6}},
            "encoding": {
                "y": place,
                "x": {"field": "share", "type": "quantitative", "title": title},
                "tooltip": shown,
            },
        },
        {
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {
                "y": place,
                "x": {"field": "low", "type": "quantitative", "title": title},
                "x2": {"field": "high"},
            },
        },
    ]


def alpha_charts(trials: Sequence[Trial], *, is_log: bool) -> list[Chart]:
    """Source and robust accuracy over alpha; none where alpha was not swept."""
    charts = []
    for key, name in ((SOURCE, "source accuracy"), (ROBUST, "robust accuracy")):
        points: list[dict[str, Any]] = [
            {"trial": trial.trial, "role": trial.role, "alpha": alpha, "value": in_percent(trial.values[key])}
            for trial in trials
            if not trial.is_baseline
            and key in trial.values
            and isinstance(alpha := trial.parameters.get(ALPHA), int | float)
        ]
        alphas = [point["alpha"] for point in points]
        if len(set(alphas)) > 1:
            baseline = [
                in_percent(trial.values[key]) for trial in trials if trial.is_baseline and key in trial.values
            ]
            charts.append(_alpha_chart(points, name, baseline, is_log=is_log and min(alphas) > 0))
    return charts


def _alpha_chart(
    points: list[dict[str, Any]], name: str, baseline: Sequence[float], *, is_log: bool
) -> Chart:
    alphas, values = [point["alpha"] for point in points], [point["value"] for point in points]
    scale = {"type": "log", "nice": False, "padding": 12} if is_log else {"padding": 12, "zero": False}
    axis = {"values": log_ticks(min(alphas), max(alphas)), "format": "~g"} if is_log else {"tickCount": 5}
    x = {
        "field": "alpha",
        "type": "quantitative",
        "title": "alpha, the weight of the source loss",
        "scale": scale,
        "axis": axis,
    }
    y = accuracy_axis("value", f"{name}, %", [*values, *baseline])
    shown = tooltip(("trial", "trial"), ("role", "role"), ("alpha", "alpha"), ("value", f"{name}, %"))
    roles = role_scales([point["role"] for point in points])
    dots = {
        "data": {"values": points},
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
        "encoding": {"x": x, "y": y, **roles, "tooltip": shown},
    }
    return Chart(
        {"layer": with_values([dots, *_baseline_layers(baseline, y)])},
        title=f"{name.capitalize()} over alpha",
        description=(
            f"{len(points)} trials. {name.capitalize()} lies between {min(values):.1f} and "
            f"{max(values):.1f} %{'; alpha on a logarithmic scale' if is_log else ''}."
        ),
    )


def _baseline_layers(baseline: Sequence[float], y: dict[str, Any]) -> list[dict[str, Any]]:
    """A line at the height of the baseline, whose alpha was not drawn."""
    place = {"data": {"values": [{"value": value, "label": "baseline"} for value in baseline]}}
    return [
        {
            **place,
            "mark": {"type": "rule", "color": GREEN, "strokeDash": [4, 4]},
            "encoding": {"y": y},
        },
        {
            **place,
            "mark": {"type": "text", "align": "left", "dx": 4, "dy": -7, "x": 0},
            "encoding": {"y": y, "text": {"field": "label"}},
        },
    ]


def cost_chart(trials: Sequence[Trial]) -> Chart | None:
    """Training seconds of each trial, longest first."""
    costly = sorted(
        (trial for trial in trials if trial.train_s > 0), key=lambda one: (-one.train_s, one.trial)
    )
    bars = [
        {
            "trial": trial.trial,
            "role": trial.role,
            "seconds": round(trial.train_s, 2),
            "epochs": trial.epochs,
            "forward": trial.num_forward,
            "backward": trial.num_backward,
        }
        for trial in costly[:MAX_BARS]
    ]
    if not bars:
        return None
    of_all = f"the {MAX_BARS} longest of {len(costly)} trials" if len(costly) > MAX_BARS else "all trials"
    return Chart(
        _cost_spec(bars),
        title="Cost per trial",
        description=(
            f"Training seconds of {of_all}, longest first: from {bars[0]['seconds']} to "
            f"{bars[-1]['seconds']} seconds."
        ),
    )


def _cost_spec(bars: list[dict[str, Any]]) -> dict[str, Any]:
    order = [bar["trial"] for bar in bars]
    axis = {"labelLimit": 110}
    return {
        "data": {"values": bars},
        "mark": {"type": "bar", "height": {"band": 0.75}},
        "height": 19 * len(bars),
        "encoding": {
            "y": {"field": "trial", "type": "nominal", "sort": order, "title": None, "axis": axis},
            "x": {
                "field": "seconds",
                "type": "quantitative",
                "title": "training, seconds",
                "axis": {"tickCount": 6},
            },
            "color": role_scales([bar["role"] for bar in bars])["color"],
            "tooltip": tooltip(
                ("trial", "trial"), ("role", "role"), ("seconds", "seconds"), ("epochs", "epochs"),
                ("forward", "forward passes"), ("backward", "backward passes"),
            ),
        },
    }  # fmt: skip
