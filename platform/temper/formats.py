"""How figures and words of unknown origin are written in pages, tables and charts."""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from temper.credentials import BIDI

if TYPE_CHECKING:
    from jinja2 import Environment

_CONTROLS = [code for code in (*range(32), *range(127, 160)) if not chr(code).isspace()]
_PLAIN = dict.fromkeys([*BIDI, *_CONTROLS])
"""Without what turns text around, and what a terminal takes for a command."""
_UNITS = ((1e9, "G", "billion"), (1e6, "M", "million"), (1e3, "k", "thousand"))


def percent(value: float | None, missing: str = "–") -> str:
    """``84.2`` of 0.842; ``missing`` of ``None``."""
    return missing if value is None else f"{100 * value:.1f}"


def points(value: float | None, missing: str = "–") -> str:
    """A difference of fractions in percentage points, with its sign: ``+3.1`` of 0.031."""
    return missing if value is None else f"{100 * value:+.1f}"


def short_count(value: float) -> str:
    """``12.3 M``, for tables."""
    return _counted(value, 1)


def count(value: float) -> str:
    """``12.3 million``."""
    return _counted(value, 2)


def duration(seconds: float) -> str:
    """``42 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def one_line(text: str) -> str:
    """The words on one line, from left to right: without characters that turn the text around them,
    or that terminals obey.
    """
    return " ".join(text.translate(_PLAIN).split())


def escape_markdown(text: str) -> str:
    """Text that Markdown takes literally, on one line, and that leaves the rest of its line alone."""
    escaped = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Lines of a table; cells are Markdown.

    ``align`` has an ``l`` or an ``r`` for each column, the last one also for those that follow.
    """
    rule = ["---:" if side == "r" else "---" for side in align.ljust(len(columns), align[-1])]
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)]


def spreadsheet_cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula; empty for ``None``."""
    value = value.translate(_PLAIN) if isinstance(value, str) else value
    is_number = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_number:
        return f"'{value}"
    return "" if value is None else value


def templates(package: str) -> "Environment":
    """The HTML templates of ``package``, in which every word that comes from a file is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "signed": points, "count": short_count, "duration": duration}
    return made


def script_hash(script: str) -> str:
    """By which a page's content security policy allows ``script``."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _counted(value: float, unit: int) -> str:
    size, *units = next((one for one in _UNITS if value >= one[0]), (1.0, "", ""))
    return f"{value / size:.3g} {units[unit - 1]}" if units[0] else f"{value:g}"
