"""Where things are in the folders of a run, of a sweep and of a cross-validation."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.errors import RecordError
from temper.records.external import EXTERNAL


class Within:
    """What has this name in a folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: Any, _owner: type) -> Path:
        path: Path = folder.path
        return path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    recipe = Within("recipe.yaml")
    """The resolved recipe: running it repeats the run."""
    lock = Within(".lock")
    """Held by the process that trains or evaluates the run; gone afterwards."""
    metrics = Within("metrics.jsonl")
    """One JSON line per epoch, and one more for each that was validated later."""
    tensorboard = Within("tensorboard")
    """Event files for TensorBoard."""
    tracking = Within("tracking.json")
    """Which W&B run it is; a resumed run is the same."""
    checkpoint = Within("checkpoint")
    """The best epoch's ``model.safetensors`` and ``state.json``."""
    last = Within("last")
    """The newest epoch with its optimizer, from which an interrupted run resumes."""
    samples = Within("samples")
    """Which images each update used, a file for each rank; where ``tracking.samples`` asks for it."""
    stop = Within(".stop")
    """Exists while the workers of this run are asked to save and to end."""
    waiting = Within("waiting")
    """Weights of epochs that are still to be validated, and answers that are still to be read."""
    pretrain = Within("pretrain")
    """The run folder of the pretraining on the source task, where the recipe asks for one."""
    probe = Within("probe")
    """The run folder of the linear probe on what the run starts from."""

    @property
    def probe_head(self) -> Path:
        """The head of that probe, as far as this run needs it to be compared with."""
        return self.checkpoint / "probe.safetensors"

    lineage = Within("lineage.jsonl")
    """Of population-based training: one JSON line for each time that settings changed on the way."""
    error = Within("error.txt")
    """Why a trial failed, where one did."""
    record = Within("record.json")
    outcomes = Within("outcomes.parquet")
    """Per test image: what each attack did to it."""

    def outcomes_of(self, test: str) -> Path:
        """The same of the further test set ``test``."""
        return self.path / f"outcomes-{test}.parquet"

    adversarial = Within("adversarial.safetensors")
    """Adversarial images that were kept, for pictures and for checking the record."""
    calibration = Within("calibration.json")
    """The temperature and the thresholds that `temper calibrate` fitted."""
    sources = Within("chunks.json")
    """Which model answered for each chunk of the images."""
    figure = Within("figure.png")
    """Some of them as a picture, beside the accuracy of each class."""
    mistakes = Within("mistakes.png")
    """The most confident mistakes on clean images as a picture."""
    verdict = Within("verdict.json")
    """What `temper verify` last said of the record."""


def refuse_second(run: RunFolder) -> None:
    """See that ``run`` has no record yet.

    Raises:
        RecordError: it has one, and a record is never overwritten.
    """
    if run.record.exists():
        raise RecordError(f"{run.record}: already evaluated, and a record is never overwritten; pass --out")


def discard_leftovers(run: RunFolder) -> None:
    """Remove what an evaluation left that was cut short before its record: the next writes it anew."""
    refuse_second(run)
    others = run.path.glob("outcomes-*.parquet")
    whole = (run.outcomes, run.adversarial, run.sources, run.figure, run.mistakes, *others)
    half = [one for path in (*whole, run.record) for one in run.path.glob(f".{path.name}.*.tmp")]
    for path in (*whole, *half):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep."""

    path: Path

    recipe = Within("recipe.yaml")
    space = Within("space.yaml")
    points = Within("points.jsonl")
    """One JSON line per trial that was begun: with the ledger, all that resuming needs."""
    ledger = Within("ledger.jsonl")
    """One JSON line per ended trial."""
    lock = Within(".lock")
    """Held by the process that runs the sweep."""
    report = Within("report")
    """Pages that explain the sweep."""
    summary = Within("sweep.json")
    trials = Within("trials")

    def trial(self, trial: str) -> RunFolder:
        return RunFolder(self.trials / trial)

    pretrain = Within("pretrain")
    """Run folders of pretraining, by the hash of their recipe, shared by the trials."""
    probe = Within("probe")
    """Run folders of linear probes, by the hash of their recipe, shared by the trials."""

    @property
    def boarded(self) -> list[Path]:
        """Folders with the runs of its leaderboard: trials, and the probes that they share."""
        return [self.trials, *([self.probe] if self.probe.exists() else [])]

    leaderboard = Within("leaderboard")


@dataclass(frozen=True)
class CrossvalFolder:
    """The files of one cross-validation."""

    path: Path

    recipe = Within("recipe.yaml")
    """The resolved recipe, without a fold."""
    record = Within("crossval.json")
    table = Within("crossval.md")
    plot = Within("crossval.png")
    pretrain = Within("pretrain")
    """Run folders of pretraining, by the hash of their recipe, shared by the runs."""

    def run(self, target: str, fold: int, seed: int) -> RunFolder:
        """Of ``fold``, from 0, where people count from 1; one of an earlier version stays where it is."""
        earlier = self.path / target / f"fold-{fold}-seed-{seed}"
        return RunFolder(earlier if earlier.exists() else self.path / target / f"fold-{fold + 1}_seed-{seed}")


def record_files(path: Path) -> list[Path]:
    """The file ``path`` itself, or every ``record.json`` under a folder but for hidden places, sorted."""
    return [path] if path.is_file() else _named(path, "record.json")


def external_files(path: Path) -> list[Path]:
    """The same for ``external.json``; of a file ``path`` only if that is its name."""
    files = [path] if path.is_file() else _named(path, EXTERNAL)
    return [file for file in files if file.name == EXTERNAL]


def _named(path: Path, name: str) -> list[Path]:
    """Whatever it is: a link that leads nowhere, or round in a circle, is told of when it is read."""
    found = []
    for folder, within, files in os.walk(path):
        within[:] = [one for one in within if not one.startswith(".")]
        found += [Path(folder, name)] if name in (*within, *files) else []
    return sorted(found)
