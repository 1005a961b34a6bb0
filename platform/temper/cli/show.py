"""What people see: lines and bars on stderr, the final table or JSON on stdout."""

import codecs
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from temper import formats
from temper.addresses import in_words
from temper.credentials import secrets_of, shown

console = Console(stderr=True)
PLAIN = {"–": "-", "…": "...", "±": "+-", "×": "x", "→": "->", "−": "-"}
"""How a terminal without them shows the signs that we write ourselves."""
SHORT = 24
"""Characters of a cell that is never folded."""


def write_any_name() -> None:
    """Let stdout and stderr show what they cannot encode as escapes: a name is no reason to fail."""
    codecs.register_error("temper-plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="temper-plain")


def _plainly(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    text = problem.object[problem.start : problem.end]
    return "".join(
        PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in text
    ), problem.end


def say(line: str, *, is_bad: bool = False) -> None:
    """A line about what goes on; in red where it is bad."""
    style = "bold red" if is_bad else None
    console.print(escape(shown(in_words(line))), style=style, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """An error that is not ours, in the form that ours have."""
    console.print(f"[bold red]error:[/] {escape(shown(message))}", soft_wrap=True, highlight=False)


def finish(summary: Mapping[str, Any], table: RenderableType, *, as_json: bool) -> None:
    """The final summary on stdout: one JSON object, or a table."""
    if as_json:
        print(in_words(json.dumps(dict(summary), indent=2)))  # noqa: T201  # stdout is what --json is for
    else:
        Console().print(table)


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A short table; the first column is text, the rest are right-aligned.

    Where it is wider than the terminal, text is folded, so that numbers and short words stay.
    """
    secrets = secrets_of()  # once: the environment is read slowly, and a board has hundreds of cells
    table = Table(
        title=escape(shown(in_words(title), secrets)),
        title_justify="left",
        title_style="bold",
        header_style="bold",
    )
    for index, column in enumerate(columns):
        is_short = all(len(str(cell)) <= SHORT for row in rows for cell in row[index : index + 1])
        table.add_column(
            column,
            justify="left" if index == 0 else "right",
            overflow="fold",
            no_wrap=index > 0 and is_short,
        )
    for row in rows:
        table.add_row(*(escape(shown(in_words(str(cell)), secrets)) for cell in row))
    return table


def percent(value: float | None) -> str:
    """A fraction as people read it."""
    return "–" if value is None else f"{formats.percent(value)} %"


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar to call with (done, total, note); without a terminal it stays silent."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield update


def epoch_line(metrics: Mapping[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    label = next((f"{word} " for word in ("pretrain", "probe") if metrics.get(word)), "")
    shown = [f"{label}epoch {int(metrics['epoch'])}/{epochs}"]
    if metrics.get("train/loss") is not None:
        shown.append(f"loss {metrics['train/loss']:.3f}")
    for key, name in (
        ("val/target/clean_acc", "clean"),
        ("val/target/robust_acc", "robust"),
        ("val/source/clean_acc", "source"),
    ):
        if metrics.get(key) is not None:
            shown.append(f"{name} {percent(metrics[key])}")
    return "  ".join(shown)
