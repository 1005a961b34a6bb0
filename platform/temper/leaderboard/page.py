"""``index.html``: one self-contained page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temper.leaderboard.collect import Problem
from temper.leaderboard.rank import Board, Entry, relative_link

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 48


def render_page(boards: Sequence[Board], problems: Sequence[Problem], as_of: str, out: Path) -> str:
    """The page; every word in it that comes from a record is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("temper.leaderboard", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    environment.filters["signed"] = lambda value: f"{100 * value:+.1f}"
    environment.filters["count"] = _count
    environment.globals["link"] = lambda entry, name: relative_link(Path(entry.path).with_name(name), out)
    return environment.get_template("page.html.j2").render(
        boards=[{"board": board, "plot": plot(board)} for board in boards],
        problems=problems,
        as_of=as_of,
    )


def _count(value: int) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def plot(board: Board) -> dict[str, Any]:
    """Coordinates of the plot of robust against clean accuracy, in pixels of the SVG."""
    low_x = _floor(min((entry.clean_low for entry in board.entries), default=0.0))
    low_y = _floor(min((entry.robust_low for entry in board.entries), default=0.0))

    def x(value: float) -> float:
        return round(LEFT + (value - low_x) / (1 - low_x) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low_y) / (1 - low_y) * (HEIGHT - TOP - BOTTOM), 1)

    def point(entry: Entry) -> dict[str, Any]:
        return {
            "entry": entry,
            "x": x(entry.clean_acc),
            "y": y(entry.robust_acc),
            "x1": x(entry.clean_low),
            "x2": x(entry.clean_high),
            "y1": y(entry.robust_low),
            "y2": y(entry.robust_high),
        }

    front = sorted((e for e in board.entries if e.is_pareto), key=lambda e: (e.clean_acc, -e.robust_acc))
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "x_ticks": [(x(value), f"{100 * value:.0f}") for value in _ticks(low_x)],
        "y_ticks": [(y(value), f"{100 * value:.0f}") for value in _ticks(low_y)],
        "points": [point(entry) for entry in reversed(board.entries)],
        "front": " ".join(f"{x(entry.clean_acc)},{y(entry.robust_acc)}" for entry in front),
    }


def _floor(value: float) -> float:
    """A tenth below ``value``, at most 0.9, so that an axis never is a point."""
    return min(0.9, max(0.0, int(value * 10) / 10))


def _ticks(low: float) -> list[float]:
    step = 0.02 if low >= 0.9 else 0.05 if low >= 0.7 else 0.1 if low >= 0.4 else 0.2
    return [
        low + index * step
        for index in range(round((1 - low) / step + 0.499) + 1)
        if low + index * step <= 1.001
    ]
