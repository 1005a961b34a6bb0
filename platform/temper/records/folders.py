"""Where things are in the folders of a run, of a sweep and of a cross-validation."""

from dataclasses import dataclass
from pathlib import Path

from temper.errors import RecordError
from temper.records.external import EXTERNAL


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe: running it repeats the run."""
        return self.path / "recipe.yaml"

    @property
    def lock(self) -> Path:
        """Held by the process that trains the run; gone afterwards."""
        return self.path / ".lock"

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch, and one more for each that was validated later."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def checkpoint(self) -> Path:
        """The best epoch's ``model.safetensors`` and ``state.json``."""
        return self.path / "checkpoint"

    @property
    def last(self) -> Path:
        """The newest epoch with its optimizer, from which an interrupted run resumes."""
        return self.path / "last"

    @property
    def samples(self) -> Path:
        """Which images each update used, a file for each rank; where ``tracking.samples`` asks for it."""
        return self.path / "samples"

    @property
    def stop(self) -> Path:
        """Exists while the workers of this run are asked to save and to end."""
        return self.path / ".stop"

    @property
    def waiting(self) -> Path:
        """Weights of epochs that are still to be validated, and answers that are still to be read."""
        return self.path / "waiting"

    @property
    def pretrain(self) -> Path:
        """The run folder of the pretraining on the source task, where the recipe asks for one."""
        return self.path / "pretrain"

    @property
    def probe(self) -> Path:
        """The run folder of the linear probe on what the run starts from."""
        return self.path / "probe"

    @property
    def probe_head(self) -> Path:
        """The head of that probe, as far as this run needs it to be compared with."""
        return self.checkpoint / "probe.safetensors"

    @property
    def lineage(self) -> Path:
        """Of population-based training: one JSON line for each time that settings changed on the way."""
        return self.path / "lineage.jsonl"

    @property
    def error(self) -> Path:
        """Why a trial failed, where one did."""
        return self.path / "error.txt"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def outcomes(self) -> Path:
        """Per test image: what each attack did to it."""
        return self.path / "outcomes.parquet"

    @property
    def adversarial(self) -> Path:
        """Adversarial images that were kept, for pictures and for checking the record."""
        return self.path / "adversarial.safetensors"

    @property
    def calibration(self) -> Path:
        """The temperature and the thresholds that `temper calibrate` fitted."""
        return self.path / "calibration.json"

    @property
    def sources(self) -> Path:
        """Which model answered for each chunk of the images."""
        return self.path / "chunks.json"

    @property
    def figure(self) -> Path:
        """Some of them as a picture, beside the accuracy of each class."""
        return self.path / "figure.png"


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
    whole = (run.outcomes, run.adversarial, run.sources, run.figure)
    half = [one for path in (*whole, run.record) for one in run.path.glob(f".{path.name}.*.tmp")]
    for path in (*whole, *half):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def space(self) -> Path:
        return self.path / "space.yaml"

    @property
    def points(self) -> Path:
        """One JSON line per trial that was begun: with the ledger, all that resuming needs."""
        return self.path / "points.jsonl"

    @property
    def ledger(self) -> Path:
        """One JSON line per ended trial."""
        return self.path / "ledger.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the sweep."""
        return self.path / ".lock"

    @property
    def report(self) -> Path:
        """Pages that explain the sweep."""
        return self.path / "report"

    @property
    def summary(self) -> Path:
        return self.path / "sweep.json"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    def trial(self, trial: str) -> RunFolder:
        return RunFolder(self.trials / trial)

    @property
    def pretrain(self) -> Path:
        """Run folders of pretraining, by the hash of their recipe, shared by the trials."""
        return self.path / "pretrain"

    @property
    def probe(self) -> Path:
        """Run folders of linear probes, by the hash of their recipe, shared by the trials."""
        return self.path / "probe"

    @property
    def boarded(self) -> list[Path]:
        """Folders with the runs of its leaderboard: trials, and the probes that they share."""
        return [self.trials, *([self.probe] if self.probe.exists() else [])]

    @property
    def leaderboard(self) -> Path:
        return self.path / "leaderboard"


@dataclass(frozen=True)
class CrossvalFolder:
    """The files of one cross-validation."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe, without a fold."""
        return self.path / "recipe.yaml"

    @property
    def record(self) -> Path:
        return self.path / "crossval.json"

    @property
    def table(self) -> Path:
        return self.path / "crossval.md"

    @property
    def plot(self) -> Path:
        return self.path / "crossval.png"

    @property
    def pretrain(self) -> Path:
        """Run folders of pretraining, by the hash of their recipe, shared by the runs."""
        return self.path / "pretrain"

    def run(self, target: str, fold: int, seed: int) -> RunFolder:
        return RunFolder(self.path / target / f"fold-{fold}-seed-{seed}")


def record_files(path: Path) -> list[Path]:
    """The file ``path`` itself, or every ``record.json`` under a folder but for hidden places, sorted."""
    return [path] if path.is_file() else _named(path, "record.json")


def external_files(path: Path) -> list[Path]:
    """The same for ``external.json``; of a file ``path`` only if that is its name."""
    if path.is_file():
        return [path] if path.name == EXTERNAL else []
    return _named(path, EXTERNAL)


def _named(path: Path, name: str) -> list[Path]:
    return sorted(
        file
        for file in path.rglob(name)
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
