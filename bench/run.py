"""Our speed as a ratio to a peer's: both sides in one run, taking turns, the median of the rounds.

`make bench` prints a table and writes bench/results.json. Absolute speeds depend on the machine and on what
else runs there; the ratios much less.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from evaluation_speed import cascade_speed
from input_speed import input_speed
from step_speed import feature_speed, step_speed

Round = Callable[[], float]
"""Does the work once; returns its speed (higher is better)."""


def compare(ours: Round, peer: Round, rounds: int) -> dict[str, float]:
    """Median speeds of both, taking turns, after one warm-up each."""
    ours(), peer()
    speeds = [(ours(), peer()) for _ in range(rounds)]
    mine, theirs = (statistics.median(column) for column in zip(*speeds, strict=True))
    return {"ours": mine, "peer": theirs, "ratio": statistics.median(a / b for a, b in speeds)}


def main() -> None:
    """Run every comparison and show the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    arguments = parser.parse_args()

    table = Table("what", "unit", "ours", "peer", "ratio", "goal")
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    with tempfile.TemporaryDirectory() as folder:
        places = (step_speed, feature_speed, input_speed, cascade_speed)
        for name, unit, goal, ours, peer in (case for place in places for case in place(Path(folder))):
            result = compare(ours, peer, arguments.rounds)
            results[name] = {"unit": unit, **result}
            speeds = [f"{result[key]:,.1f}" for key in ("ours", "peer")]
            table.add_row(name, unit, *speeds, f"{result['ratio']:.2f}", goal)
    Console().print(table)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
