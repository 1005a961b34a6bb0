"""Putting charts into a page that stands alone."""

import contextlib
import html
import json
import os
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from temper.charts.chart import Chart, draw_svg
from temper.records import write_atomic


def embed_chart(chart: Chart, *, is_interactive: bool = True, picture: str | None = None) -> str:
    """A ``figure`` element: title, picture, and the specification for ``chart_script`` to bring to life.

    ``picture`` is markup that stands for the chart where Vega's own drawing (0.05 s, the first one 1 s) is
    too slow. Every other word in it is escaped. The page gives it styles by the classes ``chart`` and
    ``chart-picture``.
    """
    spec = ""
    if is_interactive:
        # Nothing in a script element may look like its end, or like the start of a comment.
        text = json.dumps(chart.complete(is_fluid=True), allow_nan=False).replace("<", "\\u003c")
        spec = f'<script type="application/json" class="chart-spec">{text}</script>'
    return (
        f'<figure class="chart"><figcaption>{html.escape(chart.title)}</figcaption>'
        f'<div class="chart-picture" role="img" aria-label="{html.escape(chart.description)}">'
        f"{draw_svg(chart) if picture is None else picture}</div>{spec}</figure>"
    )


def chart_script() -> str:
    """JavaScript to put once at the end of a page with charts: Vega, and what replaces pictures by it."""
    own = files("temper.charts").joinpath("embed.js").read_text(encoding="utf-8")
    return f"{_vega()}\n{own}"


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed in one, from vl-convert; gathering them takes seconds, so kept."""
    import vl_convert

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "temper"
    kept = cache / f"vega-{version('vl-convert-python')}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except OSError:
        pass
    # Its stub knows no default.
    text = str(vl_convert.javascript_bundle()).replace("</script", "<\\/script")  # type: ignore[call-arg]
    with contextlib.suppress(OSError):  # a home that cannot be written costs seconds, no more
        write_atomic(kept, text)
    return text
