"""Parallel coordinates: a line for each trial through its parameters and its accuracies."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from temper.charts import Chart
from temper.explain.gather import CLEAN, ROBUST, SOURCE
from temper.explain.marks import describe, role_scales, tooltip, with_values
from temper.explain.trials import Trial, parameter_paths, short_names

AXIS_WIDTH: Final = 145
"""Pixels from one axis to the next."""
ABSENT: Final = -0.12
"""Where lines pass an axis whose parameter they do not have."""
CROWD: Final = 50
"""Lines of more trials are drawn finer."""
MANY: Final = 7
"""More values of a number are told by their ends and the middle."""


@dataclass(frozen=True)
class Axis:
    """One axis: where each trial passes it, and what is written along it."""

    title: str
    places: dict[str, float]
    """Trial -> 0..1 from below, or ``ABSENT``."""
    texts: dict[str, str]
    """Trial -> its value, for people."""
    ticks: list[tuple[float, str]]


VALUES: Final = {"type": "text", "align": "left", "dx": 6, "dy": -6, "fontSize": 11}
HEADS: Final = {
    "orient": "top",
    "labelAngle": 0,
    "domain": False,
    "ticks": False,
    "labelLimit": AXIS_WIDTH - 10,
    "labelFontWeight": "bold",
    "labelOverlap": False,
    "grid": True,
    "gridOpacity": 0.5,
}


def parallel_chart(trials: Sequence[Trial], is_log: Callable[[str], bool]) -> Chart | None:
    """Trials with any metric, the baseline left out; ``None`` where there are fewer than two axes."""
    shown = [trial for trial in trials if not trial.is_baseline and trial.values]
    axes = build_axes(shown, is_log)
    if len(axes) < 2:
        return None
    titles = [axis.title for axis in axes]
    return Chart(
        {"layer": _layers(shown, axes), "width": AXIS_WIDTH * len(axes), "height": 340},
        title="Parameters and accuracies of each trial",
        description=(
            f"Parallel coordinates of {len(shown)} trials ({describe(shown)}) over {', '.join(titles)}. "
            "The table of all trials holds the same numbers."
        ),
    )


def _layers(trials: Sequence[Trial], axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Lines, those of the front above; dots to point at; values along the axes."""
    channels = _channels(axes)
    colored = {**channels, "color": role_scales([trial.role for trial in trials])["color"]}
    lines, ticks = _lines(trials, axes), _ticks(axes)
    shown = tooltip(("trial", "trial"), ("role", "role"), ("axis", "what"), ("value", "value"))
    path = {**colored, "detail": {"field": "trial"}, "order": {"field": "order"}}
    front = [line for line in lines if line["role"] == "on the front"]
    others = [line for line in lines if line["role"] != "on the front"]
    is_crowded = len(trials) > CROWD
    return with_values(
        [
            {
                "data": {"values": others},
                "mark": {"type": "line", "strokeWidth": 1.2, "opacity": 0.3 if is_crowded else 0.55},
                "encoding": path,
            },
            {
                "data": {"values": front},
                "mark": {"type": "line", "strokeWidth": 1.5 if is_crowded else 2.4, "opacity": 1},
                "encoding": path,
            },
            {
                "data": {"values": lines},
                "mark": {"type": "point", "filled": True, "size": 28, "opacity": 0.9},
                "encoding": {**colored, "tooltip": shown},
            },
            {
                "data": {"values": ticks},
                "mark": {**VALUES, "limit": AXIS_WIDTH - 12},
                "encoding": {**channels, "text": {"field": "label"}},
            },
        ]
    )


def _channels(axes: Sequence[Axis]) -> dict[str, Any]:
    """Where things are drawn: axes side by side, and 0..1 along each."""
    return {
        "x": {
            "field": "axis",
            "type": "nominal",
            "sort": [axis.title for axis in axes],
            "title": None,
            "scale": {"type": "point", "padding": 0.45},
            "axis": HEADS,
        },
        "y": {
            "field": "y",
            "type": "quantitative",
            "axis": None,
            "scale": {"domain": [ABSENT - 0.06, 1.06], "nice": False},
        },
    }


def _lines(trials: Sequence[Trial], axes: Sequence[Axis]) -> list[dict[str, Any]]:
    return [
        {
            "axis": axis.title,
            "y": axis.places[trial.trial],
            "trial": trial.trial,
            "role": trial.role,
            "value": axis.texts[trial.trial],
            "order": index,
        }
        for trial in trials
        for index, axis in enumerate(axes)
    ]


def _ticks(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    return [{"axis": axis.title, "y": where, "label": text} for axis in axes for where, text in axis.ticks]


def build_axes(trials: Sequence[Trial], is_log: Callable[[str], bool]) -> list[Axis]:
    """Parameters that vary, then clean, robust and source accuracy in percent where measured."""
    paths = parameter_paths(trials)
    names = short_names(paths)
    axes = []
    for path in paths:
        values = {trial.trial: trial.parameters.get(path) for trial in trials}
        if len(set(values.values())) > 1:
            axes.append(build_axis(names[path], values, is_log=is_log(path)))
    for key, name in ((CLEAN, "clean %"), (ROBUST, "robust %"), (SOURCE, "source %")):
        if any(key in trial.values for trial in trials):
            measured: dict[str, float | str | None] = {
                trial.trial: 100 * trial.values[key] if key in trial.values else None for trial in trials
            }
            axes.append(build_axis(name, measured, is_log=False))
    return axes


def build_axis(title: str, values: dict[str, float | str | None], *, is_log: bool) -> Axis:
    """Numbers between their least and their largest; texts at equal distances, sorted."""
    present = [value for value in values.values() if value is not None]
    if all(not isinstance(value, str) for value in present):
        place, ticks = _numbers([float(value) for value in present], is_log)
    else:
        known = sorted({_text(value) for value in present})
        at = {text: (index / (len(known) - 1) if len(known) > 1 else 0.5) for index, text in enumerate(known)}
        place, ticks = (lambda value: at[_text(value)]), [(where, text) for text, where in at.items()]
    if len(present) < len(values):
        ticks = [*ticks, (ABSENT, "absent")]
    return Axis(
        title,
        {trial: ABSENT if value is None else round(place(value), 4) for trial, value in values.items()},
        {trial: "absent" if value is None else _text(value) for trial, value in values.items()},
        [(round(where, 4), text) for where, text in ticks],
    )


def _numbers(values: list[float], is_log: bool) -> tuple[Callable[[Any], float], list[tuple[float, str]]]:
    """Where a number lies, and ticks: every value of a few, else the ends and the middle."""
    scale = math.log if is_log and min(values) > 0 else float
    back = math.exp if scale is math.log else float
    low, high = scale(min(values)), scale(max(values))

    def place(value: Any) -> float:
        return (scale(value) - low) / (high - low) if high > low else 0.5

    known = sorted(set(values))
    if len(known) > MANY:
        known = [min(values), back((low + high) / 2), max(values)]
    return place, [(place(value), _text(value)) for value in known]


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
