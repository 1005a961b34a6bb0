"""What a trial of a sweep costs beyond its own training: in a process that stays, and nested in TorchTrainer.

    python bench/sweep_overhead.py

The same tiny trials one after the other on one Ray; the first of each is left out, for it starts the process.
Prints a Markdown table: seconds per trial beyond training, and their ratio.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from digit_tasks import write_tasks
from row import Row
from temper.cluster.runtime import start_ray
from temper.cluster.sweep import Watch, sweep
from temper.records import LedgerRow
from temper.search import SearchSpace
from temper.spec import apply_overrides, read_yaml

RECIPE = Path(__file__).parents[1] / "jobs/recipes/tiny.yaml"


def rows(folder: Path) -> Iterator[Row]:
    """Once, for a nested trial takes half a minute; each side is the mean over several trials."""
    document = small_recipe(folder)
    nested = apply_overrides(document, {"workers.num_workers": 1})
    yield Row(
        "overhead per trial of a sweep",
        "nested in TorchTrainer",
        "s",
        "<= 0.067",
        lambda: overhead(document, 8, folder / "kept"),
        lambda: overhead(nested, 4, folder / "nested"),
        rounds=1,
        warm_ups=0,
    )
    ray.shutdown()  # what is measured after it should have the machine for itself


def small_recipe(folder: Path) -> dict[str, Any]:
    """The tiny recipe on the digits, one trial at a time: seconds between ends are seconds of one trial."""
    paths = write_tasks(folder)
    start_ray()
    cpus = int(ray.cluster_resources()["CPU"])
    small = {"evaluation.suite": "quick", "evaluation.max_images": 16, "workers.cpus_per_worker": cpus}
    return apply_overrides(read_yaml(RECIPE), {**paths, **small})


def main() -> None:
    """Our way, then the plain one."""
    with tempfile.TemporaryDirectory() as name:
        row = next(rows(Path(name)))
        found = row.measure(1)
    print("| trials | s beyond training, each | goal |")
    print("|---|---:|---:|")
    print(f"| in a process that stays | {found['ours']:.2f} | 2 |")
    print(f"| nested in TorchTrainer | {found['peer']:.1f} | |")
    print(f"| ratio | 1/{1 / found['ratio']:.0f} | 1/15 |")


def overhead(document: dict[str, Any], count: int, out: Path) -> float:
    """Seconds per trial, from the second on, that are not training."""
    ends: list[tuple[float, float]] = []

    def ended(row: LedgerRow, total: int) -> None:
        ends.append((time.perf_counter(), row.cost["train_s"]))

    space = {
        "samples": count, "scheduler": None, "finalists": 1,
        "parameters": {"objective.alpha": {"uniform": [0.1, 1.0]}},
    }  # fmt: skip
    sweep(document, SearchSpace.model_validate(space), out, watch=Watch(on_trial=ended))
    between = ends[-1][0] - ends[0][0]
    return (between - sum(seconds for _, seconds in ends[1:])) / (count - 1)


if __name__ == "__main__":
    main()
