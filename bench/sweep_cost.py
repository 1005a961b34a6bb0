"""What early stopping by the cheap metric saves: a whole grid against the same points under ASHA.

    python bench/sweep_cost.py

On scikit-learn's digits, in one run on one Ray. Each sweep hands its best five to the suite `standard`.
Prints a Markdown table: training steps, and the best robust accuracy that each found; what is compared with
the grid is the first ASHA, the others show how much hangs on its settings.
"""

import tempfile
from pathlib import Path

from digit_tasks import write_tasks
from temper.cluster.sweep import sweep
from temper.records import SweepFolder, read_ledger, read_record
from temper.search import SearchSpace
from temper.spec import apply_overrides, read_yaml

RECIPE = Path(__file__).parents[1] / "jobs/recipes/digits.yaml"
SPACE = {
    "search": "grid",
    "finalists": 5,
    "parameters": {
        "objective.alpha": {"choice": [0.03, 0.1, 0.3, 1.0]},
        "schedule.kind": {"choice": ["full", "last_k"]},
        "schedule.k": {"choice": [2], "when": {"schedule.kind": "last_k"}},
        "objective.adversary.eps": {"choice": [0.05, 0.1, 0.2]},
    },
}
SCHEDULERS = {
    "whole grid": None,
    "ASHA, rungs 2, 6": {"kind": "asha", "grace_epochs": 2, "reduction_factor": 3},
    "ASHA, rungs 1, 3, 9": {"kind": "asha", "grace_epochs": 1, "reduction_factor": 3},
    "ASHA, rungs 1, 4": {"kind": "asha", "grace_epochs": 1, "reduction_factor": 4},
}


def main() -> None:
    """The grid, then each ASHA on its points."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_tasks(folder)
        document = apply_overrides(read_yaml(RECIPE), {**paths, "tracking.wandb": False})
        print("| sweep | trials | training epochs | passes, million | best robust %, suite | minutes |")
        print("|---|---:|---:|---:|---:|---:|")
        found = [
            measure(name, document, scheduler, folder / f"sweep-{index}")
            for index, (name, scheduler) in enumerate(SCHEDULERS.items())
        ]
        (epochs, passes, robust), (fewer, less, other) = found[:2]
        print(
            f"\nASHA spent {fewer / epochs:.0%} of the grid's training steps, "
            f"{less / passes:.0%} of its passes; its best model is "
            f"{100 * (other - robust):+.1f} points from the grid's."
        )


def measure(
    name: str, document: dict[str, object], scheduler: object, out: Path
) -> tuple[float, float, float]:
    """Epochs trained in all trials, passes of an image, and the best finalist's robust accuracy."""
    space = SearchSpace.model_validate({**SPACE, "scheduler": scheduler})
    record = sweep(document, space, out)
    folder = SweepFolder(out)
    rows = read_ledger(folder.ledger)
    epochs = sum(row.metrics["epoch"] for row in rows)
    passes = sum(row.cost["num_forward"] + row.cost["num_backward"] for row in rows)
    robust = max(read_record(folder.trial(one).record).robust_acc.value for one in record.finalists)
    print(
        f"| {name} | {len(rows)} | {epochs:.0f} | {passes / 1e6:.2f} | {100 * robust:.1f} "
        f"| {record.seconds / 60:.1f} |",
        flush=True,
    )
    return epochs, passes, robust


if __name__ == "__main__":
    main()
