"""Charts of accuracies against each other: the front, and the cheap metric against the suite."""

from collections.abc import Sequence
from typing import Any, Final

from temper.charts import BLUE, GREEN, Chart
from temper.explain.gather import CLEAN, ROBUST, SOURCE
from temper.explain.marks import (
    SUITE,
    accuracy_axis,
    describe,
    in_percent,
    labels,
    role_scales,
    tooltip,
    with_values,
)
from temper.explain.summary import NAMES, proxy_pairs
from temper.explain.trials import Trial
from temper.tradeoff import pareto_front

MAX_NAMES: Final = 15
"""Where more trials are near the front, only those on its outline are named."""


def front_charts(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Chart]:
    """Robust accuracy against clean, over all trials; then what is near the front, against each objective.

    Where robust accuracy is no objective, the first one takes its place.
    """
    y = ROBUST if ROBUST in objectives or not objectives else objectives[0]
    charts: list[Chart] = []
    for x in (name for name in objectives if name != y):
        shown = [trial for trial in trials if {x, y} <= set(trial.values)]
        near = [
            trial for trial in shown if not trial.is_baseline and (trial.is_on_front or trial.is_finalist)
        ]
        if shown and not charts:
            charts.append(_front_chart(shown, x, y, [], is_near=False))
        if near:
            charts.append(_front_chart(near, x, y, _suite_points(near, x, y), is_near=True))
    return charts


def _front_chart(
    trials: Sequence[Trial], x: str, y: str, suite: list[dict[str, Any]], *, is_near: bool
) -> Chart:
    best = max(trials, key=lambda trial: trial.values[y])
    joined = " Each is joined to the same model under the suite." if suite else ""
    return Chart(
        {"layer": _front_layers(trials, x, y, suite, is_near=is_near)},
        title=(
            f"{_name(y).capitalize()} against {_name(x)}: {'near the front' if is_near else 'all trials'}"
        ),
        description=(
            f"Points: {describe(trials)}. The highest {_name(y)} is {100 * best.values[y]:.1f} % "
            f"at {100 * best.values[x]:.1f} % {_name(x)}, trial {best.trial}.{joined}"
        ),
    )


def _front_layers(
    trials: Sequence[Trial], x: str, y: str, suite: list[dict[str, Any]], *, is_near: bool
) -> list[dict[str, Any]]:
    # What is drawn last lies above what coincides with it.
    points = [_point(trial, x, y) for trial in sorted(trials, key=lambda trial: trial.is_on_front)]
    both = [*points, *suite]
    channels = {
        "x": accuracy_axis("x", f"{_name(x)}, %", [point["x"] for point in both]),
        "y": accuracy_axis("y", f"{_name(y)}, %", [point["y"] for point in both]),
    }
    outline = _outline(trials, x, y)
    named = points if is_near else [point for point in points if point["role"] == "baseline"]
    if len(named) > MAX_NAMES:
        named = [point for point in points if {"x": point["x"], "y": point["y"]} in outline]
    shown = tooltip(("trial", "trial"), ("role", "role"), ("x", f"{_name(x)}, %"), ("y", f"{_name(y)}, %"))
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": outline},
            "mark": {"type": "line", "color": BLUE, "strokeDash": [5, 4], "strokeWidth": 1.5},
            "encoding": {**channels, "order": {"field": "x", "type": "quantitative"}},
        },
        {
            "data": {"values": suite},
            "mark": {"type": "rule", "opacity": 0.45, "strokeDash": [2, 2]},
            "encoding": {**channels, "x2": {"field": "from_x"}, "y2": {"field": "from_y"}},
        },
        _dots(both, channels, shown),
        *labels(named, channels),
    ]
    return with_values(layers)


def _dots(
    points: list[dict[str, Any]], channels: dict[str, Any], shown: list[dict[str, Any]]
) -> dict[str, Any]:
    roles = role_scales([point["role"] for point in points])
    return {
        "data": {"values": points},
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
        "encoding": {**channels, **roles, "tooltip": shown},
    }


def _outline(trials: Sequence[Trial], x: str, y: str) -> list[dict[str, float]]:
    """Corners of the front as it looks in two objectives."""
    front = [trial for trial in trials if trial.is_on_front]
    outer = pareto_front([(trial.values[x], trial.values[y]) for trial in front])
    corners = [{"x": in_percent(front[i].values[x]), "y": in_percent(front[i].values[y])} for i in outer]
    return sorted(corners, key=lambda one: (one["x"], -one["y"]))


def _point(trial: Trial, x: str, y: str) -> dict[str, Any]:
    return {
        "trial": trial.trial,
        "role": trial.role,
        "x": in_percent(trial.values[x]),
        "y": in_percent(trial.values[y]),
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
                    "x": in_percent(measured[x]),
                    "y": in_percent(measured[y]),
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
    points: list[dict[str, Any]] = [
        {
            "trial": trial.trial,
            "x": in_percent(trial.values[metric]),
            "y": in_percent(trial.suite.robust_acc.value),
            "low": in_percent(trial.suite.robust_acc.low),
            "high": in_percent(trial.suite.robust_acc.high),
            "role": trial.role,
        }
        for trial in proxy_pairs(trials, metric)
        if trial.suite is not None
    ]
    if not points:
        return None
    return Chart(
        {"layer": _proxy_layers(points, f"validation: {_name(metric)}, %")},
        title="The cheap metric against the suite",
        description=(
            f"{len(points)} models under the suite, with 95 % intervals; on the dashed line both agree."
        ),
    )


def _proxy_layers(points: list[dict[str, Any]], title: str) -> list[dict[str, Any]]:
    ends = [value for point in points for value in (point["x"], point["low"], point["high"])]
    channels = {
        "x": accuracy_axis("x", title, [point["x"] for point in points]),
        "y": accuracy_axis("y", "robust accuracy under the suite, %", ends),
    }
    shown = tooltip(
        ("trial", "trial"), ("x", "validation, %"), ("y", "suite, %"), ("low", "from"), ("high", "to")
    )
    # Both ends of the first axis lie on the second, which is the longer one.
    equal = [{"x": end, "y": end} for end in channels["x"]["scale"]["domain"]]
    return [
        {
            "data": {"values": equal},
            "mark": {"type": "line", "color": GREEN, "strokeDash": [4, 4], "strokeWidth": 1},
            "encoding": channels,
        },
        {
            "data": {"values": points},
            "mark": {"type": "rule", "opacity": 0.5},
            "encoding": {"x": channels["x"], "y": {**channels["y"], "field": "low"}, "y2": {"field": "high"}},
        },
        _dots(points, channels, shown),
        *labels(points, channels),
    ]


def _name(metric: str) -> str:
    return NAMES.get(metric, metric)
