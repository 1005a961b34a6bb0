"""Our speed as ratios to peers and floors: both sides in one run, taking turns, the median of the rounds.

`make bench` prints the table, and writes it to bench/results.json, bench/results.md and docs/performance.md.
Seconds depend on the machine and on what else runs there; the ratios much less.
"""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from row import Row, Rows, Skipped
from table import HEADINGS, Result, cells, merged, read_results, result_of, write_results

SCRIPTS = (
    "step_floor", "step_peers", "step_speed", "train_speed", "large_network", "stream_speed",
    "input_speed", "resident", "augment_speed", "evaluation_speed", "autoattack", "sweep_overhead",
    "command_speed", "growth", "gpu_speed",
)  # fmt: skip
"""Modules of bench/ that offer ``rows``, in the order of the table."""


def main() -> None:
    """Measure what was asked for, and show the ratios."""
    arguments = _arguments()
    words: list[str] = arguments.only
    former = read_results(arguments.out)
    named = [script for script in SCRIPTS if any(word in script for word in words)]
    console = Console(width=None if sys.stdout.isatty() else 160)
    failures, new, is_skipped = list[str](), list[Result](), False
    with tempfile.TemporaryDirectory() as name, console.status("") as status:
        for script in named or _candidates(words, former):
            status.update(script)
            try:
                for row in _rows(script, Path(name) / script, [] if named else words):
                    if isinstance(row, Skipped):
                        is_skipped = True
                        console.print(f"{script}, {row.name}: skipped: {row.reason}")
                        continue
                    label = f"{script}, {row.name}, against {row.peer_name}"
                    status.update(label)
                    new.append(result_of(script, row, row.measure(arguments.rounds)))
                    console.print(f"{label}: {new[-1]['ratio']:.3g} ({row.goal})")
                    write_results(merged(former, new, SCRIPTS), arguments.out, _command())
            except (Exception, SystemExit) as error:  # the other rows are measured all the same
                failures.append(f"{script}: {type(error).__name__}: {error}")
                console.print(failures[-1], style="red")
    if words and not (new or failures or is_skipped):
        failures.append(f"no row was measured for {', '.join(words)}; the scripts are {', '.join(SCRIPTS)}")
    console.print(_table(new))
    sys.exit("\n".join(failures) or None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    only = "scripts with WORD in their name, or else rows; may be repeated"
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help=only)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    return parser.parse_args()


def _candidates(words: list[str], former: list[Result]) -> list[str]:
    """Scripts that may have a row with one of ``words`` (none: all): those that had, or never ran."""
    known = {result["script"] for result in former}
    having = {
        result["script"] for result in former if not words or any(word in result["measure"] for word in words)
    }
    return [script for script in SCRIPTS if script in having or script not in known]


def _rows(script: str, folder: Path, words: list[str]) -> Iterator[Row | Skipped]:
    """Those of a script with one of ``words`` (none: all), or why it has none here."""
    folder.mkdir()
    try:
        rows: Rows = importlib.import_module(script).rows
        yield from (row for row in rows(folder) if not words or any(word in row.name for word in words))
    except ModuleNotFoundError as error:
        is_ours = error.name == script
        reason = "no such script" if is_ours else f"{error.name} is not installed; the extra bench has it"
        yield Skipped("all other rows", reason)


def _command() -> str:
    return " ".join(["python bench/run.py", *sys.argv[1:]])


def _table(results: list[Result]) -> Table:
    table = Table(*HEADINGS)
    for result in results:
        table.add_row(*cells(result), style=None if result["is_won"] else "yellow")
    return table


if __name__ == "__main__":
    main()
