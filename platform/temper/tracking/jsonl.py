"""``metrics.jsonl``: one JSON line per epoch, counted from 1, always there.

With ``validation.is_asynchronous`` that line has no ``val/...``; they follow in a second line of the same
``epoch``, ``{"epoch": 4, "val/target/clean_acc": ...}``, some epochs later.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from temper.records import append_line, count_from_one, read_epochs, write_atomic


class JsonlTracker:
    """Appends a line per epoch; a resumed run first drops the epochs that it will repeat.

    It then also counts from 1 in the lines of earlier versions, which counted from 0.
    """

    def __init__(self, path: Path, start_epoch: int = 0) -> None:
        self._path = path
        if path.exists():
            kept = [row for row in read_epochs(path) if row["epoch"] < start_epoch]
            write_atomic(path, "".join(f"{json.dumps(count_from_one(row))}\n" for row in kept))

    def log(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        append_line(self._path, count_from_one({"epoch": epoch, **finite}))

    def image(self, name: str, path: Path) -> None:
        """A picture is a file already."""

    def summary(self, metrics: Mapping[str, float]) -> None:
        """The epochs are all there is to keep: final numbers are in the record."""

    def finish(self) -> None:
        """Every line is on the disk already."""
