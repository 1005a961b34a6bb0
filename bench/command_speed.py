"""How soon commands answer: `temper --help`, and `temper leaderboard` of 100 records.

The other side of a row is the time that is allowed. Both are processor time of the whole command, Python's
start included, so that other work on the machine hardly counts.
"""

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import temper
from hardened import digits_case
from leaderboard_speed import write_variant
from row import Row
from temper.records import read_columns, read_record

COMMAND = (sys.executable, "-c", "from temper.cli import main; main()")
NUM_RECORDS = 100


def rows(folder: Path) -> Iterator[Row]:
    """The start of Python and of the command line, then the leaderboard."""
    yield limited("temper --help", 0.4, "--help")
    write_records(folder / "records")
    pages = folder / "pages"
    arguments = ("leaderboard", str(folder / "records"), "--out", str(pages))
    yield limited(f"temper leaderboard, {NUM_RECORDS} records", 2.0, *arguments, made=pages)


def limited(name: str, limit_s: float, *arguments: str, made: Path | None = None) -> Row:
    """A command that must not take longer than ``limit_s``; the folder that it ``made`` goes between runs."""

    def ours() -> float:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        return cpu_seconds(*arguments)

    return Row(name, "the time allowed", "s", "<= 1", ours, lambda: limit_s)


def cpu_seconds(*arguments: str) -> float:
    """Of one ``temper`` with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_records(folder: Path) -> None:
    """Records of as many models that are right on other images, made from one evaluation."""
    case = digits_case(epochs=1, count=64)
    data = (case.images.numpy(), case.labels.numpy())
    temper.evaluate(case.weak, data, eps=case.eps, suite="quick", out=folder / "base")
    base = read_record(folder / "base/record.json")
    columns = read_columns(folder / "base" / base.files["outcomes"].path, ["row", "label"])
    for number in range(NUM_RECORDS):
        write_variant(base, columns, folder / f"{number:04d}", number)
    shutil.rmtree(folder / "base")
