"""The charts of a board: Vega-Lite for those with a script, a plain picture for all."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from temper.charts import BLUE, COLORS, RED, Chart, embed_chart
from temper.leaderboard.boards import Board
from temper.leaderboard.entries import Entry
from temper.leaderboard.page.environment import environment, short
from temper.leaderboard.page.frame import Frame, floor_of

MAX_LINES = len(COLORS)
TURNS = 390
"""From here on, in pixels of a picture, names stand to the left of their points."""
MAX_INTERVALS = 150
"""Of a picture with more models, the intervals would cover the points."""


def scatter(board: Board) -> Markup | None:
    """Robust against clean accuracy with the Pareto front."""
    entries = board.entries
    if len(entries) < 2:
        return None
    front = sorted((e for e in entries if e.is_pareto), key=lambda e: (e.clean_acc, -e.robust_acc))
    frame = Frame(
        x_low=floor_of([entry.clean_low for entry in entries]),
        x_high=1.0,
        y_low=floor_of([entry.robust_low for entry in entries]),
    )
    has_intervals = len(entries) <= MAX_INTERVALS
    labelled = _labelled(front, frame) if has_intervals else []
    picture = draw(
        "scatter",
        entries=entries,
        front=front,
        frame=frame,
        has_intervals=has_intervals,
        labelled=labelled,
        turns=TURNS,
    )
    description = f"{len(entries)} models on {short(board.data_name, 60)}. On the Pareto front: " + ", ".join(
        f"{short(e.name)} ({100 * e.clean_acc:.1f} clean, {100 * e.robust_acc:.1f} robust)" for e in front[:6]
    )
    spec = _scatter_spec(entries, frame, has_intervals, labelled)
    chart = Chart(spec, "Robust against clean accuracy", description)
    return Markup(embed_chart(chart, picture=picture))  # noqa: S704  # every word is escaped in there


def _labelled(front: Sequence[Entry], frame: Frame) -> list[str]:
    """The models of the front whose names do not cover one another."""
    kept: list[Entry] = []
    for entry in front:
        y = frame.y(entry.robust_acc)
        if all(abs(frame.y(other.robust_acc) - y) >= 15 for other in kept):
            kept.append(entry)
    return [entry.slug for entry in kept]


def _scatter_spec(
    entries: Sequence[Entry], frame: Frame, has_intervals: bool, labelled: Sequence[str]
) -> dict[str, Any]:
    values = [_point(one, has_intervals) | _name_of(one, frame, labelled) for one in reversed(entries)]
    x = axis("clean", "clean accuracy, %", frame.x_low)
    y = axis("robust", "robust accuracy, %", frame.y_low)
    quiet = {"type": "rule", "opacity": 0.35, "color": BLUE}
    layers: list[dict[str, Any]] = [
        {
            "transform": [{"filter": "datum.front"}],
            "mark": {"type": "line", "color": RED, "strokeDash": [5, 4], "strokeWidth": 1.5},
            "encoding": {"x": x, "y": y, "order": {"field": "clean"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
            "encoding": {
                "x": x,
                "y": y,
                "color": {
                    "field": "on",
                    "scale": {"domain": ["Pareto front", "behind it"], "range": [RED, BLUE]},
                }
                | {"type": "nominal", "title": None},
                "tooltip": [
                    {"field": "name", "title": "model"},
                    {"field": "rank"},
                    {"field": "clean", "format": ".1f", "title": "clean, %"},
                    {"field": "robust", "format": ".1f", "title": "robust, %"},
                ],
            },
        },
    ]
    if has_intervals:
        layers[:0] = [
            {"mark": quiet, "encoding": {"x": {**x, "field": "x1"}, "x2": {"field": "x2"}, "y": y}},
            {"mark": quiet, "encoding": {"x": x, "y": {**y, "field": "y1"}, "y2": {"field": "y2"}}},
        ]
    layers += [_names(x, y, is_right) for is_right in (False, True)]
    return {"data": {"values": values}, "layer": layers, "height": 360}


def _name_of(entry: Entry, frame: Frame, labelled: Sequence[str]) -> dict[str, Any]:
    if entry.slug not in labelled:
        return {}
    return {"label": short(entry.name, 24), "is_right": frame.x(entry.clean_acc) >= TURNS}


def _names(x: dict[str, Any], y: dict[str, Any], is_right: bool) -> dict[str, Any]:
    """Names beside their points, towards the middle of the chart."""
    side = {"align": "right", "dx": -9} if is_right else {"align": "left", "dx": 9}
    return {
        "transform": [{"filter": f"datum.label && datum.is_right === {str(is_right).lower()}"}],
        "mark": {"type": "text", "dy": -8, **side},
        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
    }


def _point(entry: Entry, has_intervals: bool) -> dict[str, Any]:
    point = {
        "name": short(entry.name, 60),
        "rank": entry.rank,
        "clean": in_percent(entry.clean_acc),
        "robust": in_percent(entry.robust_acc),
        "front": entry.is_pareto,
        "on": "Pareto front" if entry.is_pareto else "behind it",
    }
    if has_intervals:
        point |= {"x1": in_percent(entry.clean_low), "x2": in_percent(entry.clean_high)}
        point |= {"y1": in_percent(entry.robust_low), "y2": in_percent(entry.robust_high)}
    return point


def curves(board: Board) -> Markup | None:
    """Robust accuracy over eps, of the best models that have more than one."""
    entries = [entry for entry in board.entries if len(entry.curve) >= 2][:MAX_LINES]
    if not entries:
        return None
    highest = max(point.eps for entry in entries for point in entry.curve)
    frame = Frame(x_low=0.0, x_high=highest or 1.0)
    lines = [(entry, label(entry), COLORS[index]) for index, entry in enumerate(entries)]
    title, scale = eps_axis(board.threat.norm)
    picture = draw("curves", lines=lines, frame=frame, own=board.threat.eps, title=title, scale=scale)
    values = [
        {"model": name, "eps": round(point.eps * scale, 4), "robust": in_percent(point.robust_acc.value)}
        for entry, name, _ in lines
        for point in entry.curve
    ]
    encoding = {
        "x": {"field": "eps", "type": "quantitative", "title": title},
        "y": axis("robust", "robust accuracy, %", 0.0),
        "color": {
            "field": "model",
            "type": "nominal",
            "title": None,
            "sort": None,
            "legend": {"columns": 2},
            "scale": {"range": list(COLORS)},
        },
        "tooltip": [{"field": name, "type": kind} for name, kind in _TOOLTIP],
    }
    spec = {"data": {"values": values}, "mark": {"type": "line", "point": True}, "encoding": encoding}
    description = f"Robust accuracy of {len(entries)} models over eps from 0 to {highest:.4g}."
    return Markup(embed_chart(Chart(spec, "Security curves", description), picture=picture))  # noqa: S704


_TOOLTIP = (("model", "nominal"), ("eps", "quantitative"), ("robust", "quantitative"))


def eps_axis(norm: str) -> tuple[str, float]:
    """The title of an axis of eps, and what eps is multiplied with on it."""
    return ("eps in 1/255, Linf", 255.0) if norm == "linf" else (f"eps, {norm.capitalize()}", 1.0)


def axis(field: str, title: str, low: float) -> dict[str, Any]:
    """An axis of percentages from ``low``, a fraction, up to 100."""
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"domain": [100 * low, 100], "clamp": True},
    }


def draw(name: str, **values: Any) -> str:
    """The plain picture of that name."""
    macros = environment().get_template("_pictures.html.j2").module
    return str(getattr(macros, name)(**values))


def label(entry: Entry, length: int = 28) -> str:
    """How a picture names a model."""
    return f"{entry.rank}. {short(entry.name, length)}"


def in_percent(value: float) -> float:
    return round(100 * value, 2)
