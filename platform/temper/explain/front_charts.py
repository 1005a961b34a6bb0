"""Charts of accuracies against each other: the front, and the cheap metric against the suite."""

from collections.abc import Sequence
from typing import Any

from temper.charts import BLUE, GREEN, Chart
from temper.explain.gather import CLEAN, ROBUST, SOURCE
from temper.explain.marks import SUITE, accuracy_axis, describe, labels, percent, role_scales, tooltip
from temper.explain.summary import NAMES, proxy_pairs
from temper.explain.trials import Trial
from temper.tradeoff import pareto_front


def front_charts(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Chart]:
    """Robust accuracy against clean, over all trials; then what is near the front, against each objective.

    Where robust accuracy is no objective, the first one takes its place.
    """
    y = ROBUST if ROBUST in objectives or not objectives else objectives[0]
    charts = []
    for x in (name for name in objectives if name != y):
        shown = [trial for trial in trials if {x, y} <= set(trial.values)]
        near = [
            trial for trial in shown if not trial.is_baseline and (trial.is_on_front or trial.is_finalist)
        ]
        if shown and not charts:
            charts.append(_front_chart(shown, x, y, [], f"{_title(x, y)}: all trials"))
        if near:
            charts.append(
                _front_chart(near, x, y, _suite_points(near, x, y), f"{_title(x, y)}: near the front")
            )
    return charts


def _title(x: str, y: str) -> str:
    return f"{_name(y).capitalize()} against {_name(x)}"


def _front_chart(trials: Sequence[Trial], x: str, y: str, suite: list[dict[str, Any]], title: str) -> Chart:
    points = [_point(trial, x, y) for trial in trials]
    both = [*points, *suite]
    channels = {
        "x": accuracy_axis("x", f"{_name(x)}, %", [point["x"] for point in both]),
        "y": accuracy_axis("y", f"{_name(y)}, %", [point["y"] for point in both]),
    }
    named = [point for point in points if suite or point["role"] in ("on the front", "baseline")]
    low, high = channels["x"]["scale"]["domain"]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": _outline(trials, x, y)},
            "mark": {"type": "line", "color": BLUE, "strokeDash": [5, 4], "strokeWidth": 1.5},
            "encoding": {**channels, "order": {"field": "x", "type": "quantitative"}},
        },
        {
            "data": {"values": suite},
            "mark": {"type": "rule", "opacity": 0.45, "strokeDash": [2, 2]},
            "encoding": {**channels, "x2": {"field": "from_x"}, "y2": {"field": "from_y"}},
        },
        {
            "data": {"values": both},
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
            "encoding": {
                **channels,
                **role_scales([point["role"] for point in both]),
                "tooltip": tooltip(
                    ("trial", "trial"), ("role", "role"), ("x", f"{_name(x)}, %"), ("y", f"{_name(y)}, %")
                ),
            },
        },
        *(
            {**layer, "encoding": {**channels, "text": {"field": "label"}}}
            for layer in labels(named, (low + high) / 2)
        ),
    ]
    best = max(trials, key=lambda trial: trial.values[y])
    joined = " Each is joined to the same model under the suite." if suite else ""
    return Chart(
        {"layer": [layer for layer in layers if layer["data"]["values"]]},
        title=title,
        description=(
            f"Points: {describe(trials)}. The highest {_name(y)} is {100 * best.values[y]:.1f} % "
            f"at {100 * best.values[x]:.1f} % {_name(x)}, trial {best.trial}.{joined}"
        ),
    )


def _outline(trials: Sequence[Trial], x: str, y: str) -> list[dict[str, float]]:
    """Corners of the front as it looks in two objectives."""
    front = [trial for trial in trials if trial.is_on_front]
    outer = pareto_front([(trial.values[x], trial.values[y]) for trial in front])
    corners = [{"x": percent(front[i].values[x]), "y": percent(front[i].values[y])} for i in outer]
    return sorted(corners, key=lambda one: (one["x"], -one["y"]))


def _point(trial: Trial, x: str, y: str) -> dict[str, Any]:
    return {
        "trial": trial.trial,
        "role": trial.role,
        "x": percent(trial.values[x]),
        "y": percent(trial.values[y]),
    }


def _suite_points(trials: Sequence[Trial], x: str, y: str) -> list[dict[str, Any]]:
    """The same models under the suite, with where validation saw them."""
    points = []
    for trial in trials:
        measured = _suite_values(trial)
        if x in measured and y in measured:
            start = _point(trial, x, y)
            points.append(
                {
                    "trial": trial.trial,
                    "role": SUITE,
                    "x": percent(measured[x]),
                    "y": percent(measured[y]),
                    "from_x": start["x"],
                    "from_y": start["y"],
                }
            )
    return points


def _suite_values(trial: Trial) -> dict[str, float]:
    suite = trial.suite
    if suite is None or suite.is_blocked:
        return {}
    values = {CLEAN: suite.clean_acc.value, ROBUST: suite.robust_acc.value}
    return values if suite.source_acc is None else {**values, SOURCE: suite.source_acc}


def proxy_chart(trials: Sequence[Trial], metric: str) -> Chart | None:
    """Robust accuracy under the suite, with its interval, against the metric of the search.

    The baseline is left out: far from the others, it would press them together.
    """
    points = [
        {
            "trial": trial.trial,
            "x": percent(trial.values[metric]),
            "y": percent(trial.suite.robust_acc.value),
            "low": percent(trial.suite.robust_acc.low),
            "high": percent(trial.suite.robust_acc.high),
            "role": trial.role,
        }
        for trial in proxy_pairs(trials, metric)
        if trial.suite is not None
    ]
    if not points:
        return None
    ends = [*(p["x"] for p in points), *(p["low"] for p in points), *(p["high"] for p in points)]
    channels = {
        "x": accuracy_axis("x", f"validation: {_name(metric)}, %", [point["x"] for point in points]),
        "y": accuracy_axis("y", "robust accuracy under the suite, %", ends),
    }
    low, high = channels["x"]["scale"]["domain"]
    shown = tooltip(
        ("trial", "trial"), ("x", "validation, %"), ("y", "suite, %"), ("low", "from"), ("high", "to")
    )
    layers = [
        {
            "data": {
                "values": [{"x": max(low, min(ends)), "y": max(low, min(ends))}, {"x": high, "y": high}]
            },
            "mark": {"type": "line", "color": GREEN, "strokeDash": [4, 4], "strokeWidth": 1, "clip": True},
            "encoding": channels,
        },
        {
            "data": {"values": points},
            "mark": {"type": "rule", "opacity": 0.5},
            "encoding": {"x": channels["x"], "y": {**channels["y"], "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "data": {"values": points},
            "mark": {"type": "point", "filled": True, "size": 90},
            "encoding": {**channels, **role_scales([p["role"] for p in points]), "tooltip": shown},
        },
        *(
            {**layer, "encoding": {**channels, "text": {"field": "label"}}}
            for layer in labels(points, (low + high) / 2)
        ),
    ]
    return Chart(
        {"layer": layers},
        title="The cheap metric against the whole suite",
        description=(
            f"{len(points)} models that met the suite, with 95 % intervals; where both are equal, a dashed line."
        ),
    )


def _name(metric: str) -> str:
    return NAMES.get(metric, metric)
