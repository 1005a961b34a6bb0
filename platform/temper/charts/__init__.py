"""Charts that stand inside a page: a picture without JavaScript, tooltips with it, never a request."""

from temper.charts.chart import BLUE, COLORS, GREEN, ORANGE, PURPLE, RED, Chart
from temper.charts.embed import chart_script, embed_chart

__all__ = [
    "BLUE",
    "COLORS",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "RED",
    "Chart",
    "chart_script",
    "embed_chart",
]
