"""Watching a sweep: a table that lives on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from temper import formats
from temper.cli.show import console, epoch_line, percent, say
from temper.spec import format_ratio

if TYPE_CHECKING:
    from temper.cluster.sweep import Watch
    from temper.records import LedgerRow

NUM_ENDED = 6
"""Ended trials in the table, the best first."""
LEAST_ENDED = 3
"""Ended trials from which the rest is estimated."""
REFRESH_PER_S = 2
ROBUST, CLEAN = "best/val/target/robust_acc", "best/val/target/clean_acc"


@contextmanager
def watching() -> "Iterator[Watch]":
    """What to hand to a sweep so that a person sees how it goes."""
    from temper.cluster.sweep import Watch

    table = TrialTable()
    with table.shown():
        yield Watch(
            on_stage=say,
            on_epoch=lambda metrics: say(epoch_line(metrics, int(metrics.get("num_epochs", 0)))),
            on_result=table.result,
            on_trial=table.ended,
        )


class TrialTable:
    """Running trials, the best that have ended, and when the rest may be done."""

    def __init__(self) -> None:
        self._running: dict[str, Mapping[str, Any]] = {}
        self._rows: list[LedgerRow] = []
        self._total, self._started = 0, time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table while the block runs, if there is a terminal; it leaves nothing behind."""
        if not console.is_terminal:
            yield
            return
        with Live(console=console, refresh_per_second=REFRESH_PER_S, transient=True) as live:
            self._live = live
            yield
            self._live = None

    def result(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """An epoch of ``trial`` has ended."""
        self._running[trial] = metrics
        self._refresh()

    def ended(self, row: "LedgerRow", total: int) -> None:
        """A trial has ended."""
        if not self._rows:
            self._started -= row.cost.get("train_s", 0.0)
        self._running.pop(row.trial, None)
        self._rows.append(row)
        self._total = total
        told = row.error or row.reason or ""
        line = f"trial {len(self._rows)}/{total}  {row.trial}  {_outcome(row)}"
        say("  ".join(part for part in (line, _accuracies(row.metrics), told, self._eta()) if part))
        self._refresh()

    def _eta(self) -> str:
        left = self._total - len(self._rows)
        if left <= 0 or len(self._rows) < LEAST_ENDED:
            return ""
        seconds = (time.monotonic() - self._started) / len(self._rows) * left
        return f"about {duration(seconds)} left"

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._table())

    def _table(self) -> Table:
        total = f" of {self._total}" if self._total else ""
        done = f"{len(self._rows)}{total} trials ended"
        table = Table(
            title="  ".join(filter(None, (done, self._eta() if self._rows else ""))), title_justify="left"
        )
        for column in ("trial", "state", "epoch", "clean %", "robust %", "settings"):
            table.add_column(column, justify="left" if column in ("trial", "state", "settings") else "right")
        for trial, metrics in sorted(self._running.items()):
            table.add_row(*map(escape, _cells(trial, "running", metrics, {})))
        best = sorted(self._rows, key=lambda row: -row.metrics.get(ROBUST, row.metrics.get(CLEAN, 0.0)))
        for row in best[:NUM_ENDED]:
            table.add_row(*map(escape, _cells(row.trial, _outcome(row), row.metrics, row.overrides)))
        return table


def _outcome(row: "LedgerRow") -> str:
    return "diverged" if row.has_diverged else row.status


def _cells(trial: str, state: str, metrics: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    clean, robust = (formats.percent(metrics.get(name)) for name in (CLEAN, ROBUST))
    return [trial, state, f"{metrics.get('epoch', 0):.0f}", clean, robust, settings(overrides)]


def _accuracies(metrics: Mapping[str, float]) -> str:
    shown = [("clean", metrics.get(CLEAN)), ("robust", metrics.get(ROBUST))]
    found = [f"{name} {percent(value)}" for name, value in shown if value is not None]
    return f"validation {', '.join(found)}" if found else ""


def settings(overrides: Mapping[str, Any]) -> str:
    """What a trial varies, in a few words."""
    return ", ".join(f"{path.rpartition('.')[2]} {_value(value)}" for path, value in overrides.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "/".join(map(str, value.values()))))
    return format_ratio(value) if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
