"""How long `temper leaderboard` takes for many models, and how large its page is.

`python bench/leaderboard_speed.py RUN --models 100 1000`: from the record of one evaluated run, that many are
made with outcomes of their own. Times are of the whole command, start of Python included: they depend on the
machine, so docs/leaderboard.md says on which they were taken.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from temper.records import (
    EvaluationRecord,
    FileRecord,
    read_columns,
    read_record,
    sha256_of,
    write_outcomes,
)
from temper.statistics import wilson


def write_variant(base: EvaluationRecord, columns: dict[str, np.ndarray], folder: Path, number: int) -> None:
    """A record whose model is right on other images."""
    draw = np.random.default_rng(number)
    correct = draw.random(len(columns["row"])) < draw.uniform(0.7, 1.0)
    robust = correct & (draw.random(len(correct)) < draw.random())
    outcomes = folder / "outcomes.parquet"
    write_outcomes(outcomes, pa.table({**columns, "correct": correct, "robust": robust}))
    record = base.model_copy(
        update={
            "name": f"model-{number:04d}",
            "clean_acc": wilson(int(correct.sum()), len(correct)),
            "robust_acc": wilson(int(robust.sum()), len(robust)),
            "files": {**base.files, "outcomes": FileRecord(path=outcomes.name, sha256=sha256_of(outcomes))},
        }
    )
    (folder / "record.json").write_text(record.model_dump_json(), encoding="utf-8")


def cpu_seconds() -> float:
    """Of the processes that ended; a busy machine changes it less than the clock's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a line for each number of models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--models", type=int, nargs="+", default=[100, 1000])
    arguments = parser.parse_args()
    base = read_record(arguments.run / "record.json")
    columns = read_columns(arguments.run / base.files["outcomes"].path, ["row", "label"])
    for count in arguments.models:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number in range(count):
                write_variant(base, columns, folder / f"in/{number:04d}", number)
            code = "from temper.cli import main; main()"
            places = [str(folder / "in"), "--out", str(folder / "out")]
            command = [sys.executable, "-c", code, "leaderboard", *places]
            start, used = time.perf_counter(), cpu_seconds()
            subprocess.run(command, check=True, capture_output=True)
            seconds, used = time.perf_counter() - start, cpu_seconds() - used
            size = (folder / "out/index.html").stat().st_size
            print(f"{count} models: {seconds:.2f} s ({used:.2f} s of CPU), index.html {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
