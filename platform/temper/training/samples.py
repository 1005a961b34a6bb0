"""Which images each update used, where ``tracking.samples`` asks for it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.batches import Batch
from temper.records import RunFolder, count_from_one, read_epochs, write_atomic
from temper.training.worker import Worker

Row = dict[str, Any]
"""``epoch``, ``step``, ``share``, and task -> rows of its split, in order. Files count epochs from 1."""


class NoSamples:
    """Keeps nothing, so that the loop never asks whether samples are logged."""

    def begin(self, epoch: int, step: int) -> None:
        """The run resumes at ``step`` of ``epoch``: what was logged from there on is not in the weights."""

    def note(self, epoch: int, step: int, batches: Mapping[str, Batch], shares: Sequence[int]) -> None:
        """An update has used ``batches``: of this worker, its ``shares`` in a row."""

    def discard(self, epoch: int) -> None:
        """``epoch`` was thrown away."""


class SampleLog(NoSamples):
    """One file for each rank, one JSON line for each share of each update that is in the weights."""

    def __init__(self, run: RunFolder, worker: Worker) -> None:
        self._folder, self._worker = run.samples, worker
        self._path = run.samples / f"rank-{worker.rank:05d}.jsonl"

    def begin(self, epoch: int, step: int) -> None:
        if self._worker.is_chief:  # ranks of before may not be there any more
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.glob("rank-*.jsonl"):
                _keep(path, lambda row: (row["epoch"], row["step"]) < (epoch, step))
        self._worker.barrier()

    def note(self, epoch: int, step: int, batches: Mapping[str, Batch], shares: Sequence[int]) -> None:
        parts = {task: batch.split() for task, batch in batches.items()}
        with self._path.open("a", encoding="utf-8") as file:
            for index, share in enumerate(shares):
                rows = {task: own[index].rows.tolist() for task, own in parts.items()}
                if any(rows.values()):
                    file.write(_line({"epoch": epoch, "step": step, "share": share, **rows}))

    def discard(self, epoch: int) -> None:
        _keep(self._path, lambda row: bool(row["epoch"] != epoch))


def build_sample_log(is_on: bool, run: RunFolder, worker: Worker) -> NoSamples:
    """A log of samples, or one that keeps nothing."""
    return SampleLog(run, worker) if is_on else NoSamples()


def read_samples(run: RunFolder) -> list[Row]:
    """What every update in the weights has used, in the order of updates and shares."""
    rows = [row for path in run.samples.glob("rank-*.jsonl") for row in read_epochs(path)]
    return sorted(rows, key=lambda row: (row["epoch"], row["step"], row["share"]))


def _keep(path: Path, wanted: Any) -> None:
    kept = [row for row in read_epochs(path) if wanted(row)]
    write_atomic(path, "".join(_line(row) for row in kept))


def _line(row: Row) -> str:
    return json.dumps(count_from_one(row)) + "\n"
