"""How words and numbers get into a page. Every word that comes from a record is escaped."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from temper.advice.words import p_value
from temper.formats import one_line, script_hash, templates
from temper.spec import format_ratio

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> "Environment":
    """Templates of this package, with their filters."""
    made = templates("temper.leaderboard.page")
    made.filters |= {
        "ratio": format_ratio,
        "short": short,
        "named": lambda text: text if text.strip() else "(no name)",
        "p_value": p_value,
        "number": lambda value: "–" if value is None else f"{value:.3g}",
    }
    made.globals["style"] = asset("style.css")
    return made


@cache
def asset(name: str) -> str:
    """A style sheet or a script of this package."""
    return files("temper.leaderboard.page").joinpath(name).read_text(encoding="utf-8")


def content_policy(scripts: list[str], *, is_live: bool = False) -> str:
    """What a page may do: nothing but its own styles, pictures and exactly these scripts."""
    allowed = " ".join(f"'{script_hash(script)}'" for script in scripts) or "'none'"
    parts = ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data: 'self' file:"]
    parts += [f"script-src {allowed}", "base-uri 'none'", "form-action 'none'"]
    return "; ".join([*parts, "connect-src 'self'"] if is_live else parts)


def short(text: str, length: int = 28) -> str:
    """A label of a picture: on one line, from left to right."""
    plain = one_line(text)
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"
