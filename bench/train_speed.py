"""``temper train`` on a worker of Ray Train, against a bare loop in memory that takes the same steps.

Each side is a process of its own with one thread for the training. Seconds per epoch are those of the clock
from the end of the first epoch to the end of the last but one (the last is validated), so they hold whatever
is done between steps: saving, logging, reporting to Ray. On a busy machine only the processor's time of the
two processes that train says something. What the start takes is printed beside.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bare_loop import peak_mb
from photos import write_photos
from row import Difference, Measure, Row
from temper.data import ImageView, ShardSet, load_images, write_shards
from temper.spec import dump_yaml

NUM_IMAGES, SIZE = 2000, 32
TOLERANCE = {"clean": 0.01, "PGD-7": 0.1}
"""Of an epoch's loss: the bare loop starts PGD elsewhere in the ball."""
POLL_S = 0.02
COMMAND = (sys.executable, "-c", "from temper.cli import main; main()", "train")


def rows(folder: Path) -> Iterator[Row]:
    """Seconds per epoch without and with an attack, and the worker's memory."""
    photos = write_photos(folder / "photos", NUM_IMAGES, SIZE)
    write_shards(photos, folder / "shards", val_frac=0.02, test_frac=0.02)
    save_images(folder / "shards", SIZE, folder / "train.npz")
    pgd = {"kind": "pgd", "eps": 8 / 255, "steps": 7}
    for name, adversary, epochs, goal in (("PGD-7", pgd, 5, "<= 1.05"), ("clean", None, 16, "<= 1.15")):
        recipe = write_recipe(folder / f"{name}.yaml", folder / "shards", adversary, epochs)
        sides = Sides(recipe, folder, TOLERANCE[name])
        label, once = f"temper train, {name}", {"rounds": 1, "warm_ups": 0}
        yield Row(label, "bare loop", "s/epoch", goal, sides.ours, sides.peer, rounds=2, warm_ups=0)
        yield Row(
            f"{label}, by the processor",
            "bare loop",
            "CPU s/epoch",
            goal,
            *sides.latest("epoch_cpu_s"),
            **once,
        )
    label = "peak memory of a train worker"
    yield Difference(label, "bare loop", "MB", "<= 300", *sides.latest("peak_mb"), **once)


def save_images(shards: Path, size: int, file: Path) -> None:
    """The training images, decoded, for the bare loop."""
    train = load_images(ShardSet.open(shards), "train", ImageView(size))
    np.savez(file, images=train.images, labels=train.labels)


def write_recipe(
    path: Path, shards: Path, adversary: dict[str, Any] | None, epochs: int, **sections: dict[str, Any]
) -> Path:
    """A recipe of the target alone on one worker of Ray Train, validated at the end only.

    ``sections`` change some of it.
    """
    document = {
        "name": path.stem,
        "epochs": epochs,
        "threat": {"norm": "linf", "eps": 8 / 255},
        "data": {"target": str(shards), "image_size": SIZE, "batch_size": 64, "augment": {}},
        "model": {"backbone": "resnet8"},
        "objective": {"adversary": adversary},
        "optim": {"lr": 0.05, "lr_schedule": "constant"},
        "validation": {"steps": 0, "every_epochs": 1000, "metric": "val/target/clean_acc"},
        "workers": {"num_workers": 1, "use_gpu": False},
        "compute": {"precision": "fp32"},
        "tracking": {"wandb": False},
    }
    changed = {**document, **{name: {**document[name], **own} for name, own in sections.items()}}
    path.write_text(dump_yaml(changed), encoding="utf-8")
    return path


@dataclass
class Run:
    """What a side has done."""

    start_s: float
    epoch_s: float
    epoch_cpu_s: float
    """Of the process that trains."""
    losses: list[float]
    peak_mb: float

    @classmethod
    def of(cls, start_s: float, ends: list[tuple[float, float]], losses: list[float], peak: float) -> "Run":
        epoch_s, cpu_s = (
            (last - first) / (len(ends) - 2) for first, last in zip(ends[0], ends[-2], strict=True)
        )
        return cls(start_s, epoch_s, cpu_s, losses, peak)


class Sides:
    """Both trainings of a recipe, of which the latest are kept."""

    ours_run: Run
    bare_run: Run

    def __init__(self, recipe: Path, folder: Path, tolerance: float, find: "Find | None" = None) -> None:
        self._recipe, self._folder, self._tolerance = recipe, folder, tolerance
        self._find = find or find_worker
        self._count = 0

    @property
    def out(self) -> Path:
        """The run of the latest training of ours."""
        return self._folder / f"{self._recipe.stem}-{self._count}"

    def ours(self) -> float:
        self._count += 1
        command = [*COMMAND, str(self._recipe), "--no-evaluate", "--out", str(self.out)]
        self.ours_run = follow(command, self.out, self._find)
        return self.ours_run.epoch_s

    def peer(self) -> float:
        started = time.time()
        script = Path(__file__).with_name("bare_loop.py")
        command = [sys.executable, str(script), str(self._recipe), str(self._folder / "train.npz")]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.bare_run = Run.of(done["begun"] - started, done["ends"], done["losses"], done["peak_mb"])
        apart = np.abs(np.subtract(self.ours_run.losses, self.bare_run.losses)) / self.bare_run.losses
        if apart[0] > self._tolerance:
            raise SystemExit(f"{self._recipe.stem}: losses {self.ours_run.losses} and {self.bare_run.losses}")
        for name, run in (("temper", self.ours_run), ("bare loop", self.bare_run)):
            print(
                f"  {name}: start {run.start_s:.1f} s, epoch {run.epoch_s:.2f} s, "
                f"{run.epoch_cpu_s:.2f} s of the processor, peak {run.peak_mb:.0f} MB"
            )
        return self.bare_run.epoch_s

    def latest(self, what: str) -> tuple[Measure, Measure]:
        """``what`` of the latest training on both sides."""

        def ours() -> float:
            if self._count == 0:
                self.ours(), self.peer()
            return float(getattr(self.ours_run, what))

        return ours, lambda: float(getattr(self.bare_run, what))


Find = Callable[[int], psutil.Process | None]
"""The process that trains, or none yet, from the number of the command's."""


def follow(command: list[str], out: Path, find: Find) -> Run:
    """Run ``temper train`` and watch its ``metrics.jsonl`` and the process that trains."""
    started, ends, peak, worker = time.time(), list[tuple[float, float]](), 0.0, None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None:
            worker = worker or find(process.pid)
            cpu_s, mb = usage_of(worker)
            peak = max(peak, mb)
            ends += [(time.time(), cpu_s)] * (count_lines(out / "metrics.jsonl") - len(ends))
            time.sleep(POLL_S if worker else 10 * POLL_S)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{said}")
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    start_s = ends[0][0] - metrics[0]["cost/train_s"] - started
    return Run.of(start_s, ends, [row["train/loss"] for row in metrics], peak)


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def find_worker(parent: int) -> psutil.Process | None:
    """The process of Ray Train's worker."""
    with contextlib.suppress(psutil.Error):  # one has ended meanwhile
        for child in psutil.Process(parent).children(recursive=True):
            if "".join(child.cmdline()[:1]).startswith("ray::RayTrainWorker"):
                return child
    return None


def usage_of(worker: psutil.Process | None) -> tuple[float, float]:
    """Seconds of the processor so far, and peak memory in MB."""
    if worker is not None:
        with contextlib.suppress(psutil.Error, OSError):  # it has ended
            times = worker.cpu_times()
            return times.user + times.system, peak_mb(worker.pid)
    return 0.0, 0.0
