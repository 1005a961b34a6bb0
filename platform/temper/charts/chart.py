"""A chart: a Vega-Lite specification with a title, and words for those who do not see it."""

import copy
from dataclasses import dataclass
from typing import Any

BLUE, ORANGE, GREEN, RED, PURPLE = "#3f7fd0", "#c8651b", "#3a8f5c", "#cc4b4b", "#8a68c4"
COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE)
"""At least 3 : 1 against white and against the dark page."""

WIDTH, HEIGHT = 560, 300
"""Of the picture, in pixels; a page may shrink it."""

# Whatever is not a mark takes the colour of the text around it, on light and dark pages alike.
INK = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "gridColor": "currentColor",
        "gridOpacity": 0.15,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 220,
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "orient": "bottom",
        "labelLimit": 220,
    },
    "header": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12},
    "text": {"color": "currentColor", "fontSize": 12},
    "rule": {"color": "currentColor"},
    "range": {"category": list(COLORS)},
}


@dataclass(frozen=True)
class Chart:
    """``spec`` is Vega-Lite without ``config``, ``background`` and ``title``, which are set here."""

    spec: dict[str, Any]
    title: str
    description: str
    """What the chart shows, in a sentence or two, for a screen reader."""

    def complete(self, *, is_fluid: bool) -> dict[str, Any]:
        """The whole specification: as wide as its place, or of a fixed width."""
        spec = copy.deepcopy(self.spec)
        is_single = not {"hconcat", "vconcat", "concat", "facet", "repeat"} & set(spec)
        if is_single:
            spec.setdefault("height", HEIGHT)
            if is_fluid:
                spec["width"] = "container"
            else:
                spec.setdefault("width", WIDTH)
        return {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "background": None,
            "description": self.description,
            "config": INK,
            **spec,
        }


def draw_svg(chart: Chart) -> str:
    """The chart as an SVG element; what it says is escaped."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.complete(is_fluid=False)))
