"""Putting charts into a page that stands alone."""

import contextlib
import hashlib
import html
import json
from importlib.metadata import version
from importlib.resources import files

from temper.addresses import cache_folder
from temper.charts.chart import Chart, draw_svg
from temper.errors import StorageError
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

    stem = f"vega-{version('vl-convert-python')}"
    cache = cache_folder()
    # A home that cannot be read or written costs seconds, no more; an altered file is not embedded.
    with contextlib.suppress(OSError):
        for kept in cache.glob(f"{stem}-*.js"):
            content = kept.read_bytes()
            if kept.stem == f"{stem}-{hashlib.sha256(content).hexdigest()}":
                return content.decode()
    # Its stub knows no default.
    text = str(vl_convert.javascript_bundle()).replace("</script", "<\\/script")  # type: ignore[call-arg]
    with contextlib.suppress(StorageError):
        write_atomic(cache / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()}.js", text)
    return text
