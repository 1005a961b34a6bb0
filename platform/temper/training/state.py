"""Where a run stands, and how it is saved and restored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from temper.errors import CheckpointError
from temper.models import TaskModel, load_model_state, save_model
from temper.reading import read_json
from temper.records import RunFolder, write_atomic
from temper.spec import Spec, content_hash
from temper.training.compute import Compute
from temper.training.rate import RateTest


class Passes(Spec):
    """Images sent through the model and back, counted per image over all ranks."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(forward=self.forward + other.forward, backward=self.backward + other.backward)


class Underway(Spec):
    """An epoch that has begun: what of it is in the weights, of all workers together."""

    step: int = Field(ge=1)
    """Its global batches done: the next one to use is this number."""
    losses: dict[str, float]
    """Sums over these batches and their shares."""
    passes: Passes
    seconds: float


class Waiting(Spec):
    """An epoch that is validated later; its weights lie under ``waiting/``."""

    epoch: int
    metrics: dict[str, float]
    """Of its training."""
    adapter_ranks: dict[str, int] = Field(default_factory=dict)


class TrainState(Spec):
    """``state.json``: which run this is, how far it is, and its best epoch so far."""

    recipe_hash: str
    classes: dict[str, list[str]]
    fingerprints: dict[str, str]
    start_weights: str | None
    """Where the run started from: a file or run folder, ``pretrained``, or ``null`` for a random start."""
    num_epochs: int
    next_epoch: int = 0
    underway: Underway | None = None
    """What of ``next_epoch`` is done already."""
    parts: list[str] | None = None
    """Files of weights beside this one under ``last/``; ``null``: from before they were noted."""
    best_epoch: int | None = None
    """``null`` before the first one, and while the linear probe is better than each."""
    best_metrics: dict[str, float] = Field(default_factory=dict)
    probe_metrics: dict[str, float] | None = None
    """Of the linear probe on the start, where there is one: the first candidate for the best model."""
    num_trained_params: int = 0
    """Parameters that were trainable in any phase so far."""
    train_s: float = 0.0
    device: str = "cpu"
    passes: Passes = Passes()
    trainable: str | None = None
    """Digest of the names of what trained in the last epoch."""
    guarded_acc: list[float] = Field(default_factory=list)
    """Robust accuracy of the latest epochs that the guard against catastrophic overfitting let pass."""
    since_best: int = 0
    """Validations since the best one; the probe does not count."""
    best_of_epochs: float | None = None
    """The selection metric of that validation."""
    stopped: str | None = None
    """Why the run ended before its last epoch."""
    compute: Compute | None = None
    rate: RateTest | None = None
    """What ``optim.lr: auto`` came to; ``null`` where the recipe names a rate, or before it is measured."""
    adapter_ranks: dict[str, int] = Field(default_factory=dict)
    """Adapted layer -> its rank in the best epoch."""
    waiting: list[Waiting] = Field(default_factory=list)
    """Epochs that have not been considered for the best one, in their order."""

    @field_validator("guarded_acc", mode="before")
    @classmethod
    def _former_versions_kept_the_last(cls, seen: Any) -> Any:
        return [] if seen is None else [seen] if isinstance(seen, int | float) else seen

    @property
    def has_begun(self) -> bool:
        """Whether there are weights to go on from."""
        return self.next_epoch > 0 or self.underway is not None

    @property
    def best_is_probe(self) -> bool:
        """Whether no epoch is better than the linear probe, which is the model that is kept."""
        return self.probe_metrics is not None and self.best_metrics == self.probe_metrics

    @property
    def stem(self) -> str:
        """How the names of its files of weights under ``last/`` begin."""
        step = "" if self.underway is None else f"-step-{self.underway.step:08d}"
        return f"epoch-{self.next_epoch:05d}{step}"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.next_epoch >= self.num_epochs or self.stopped is not None

    @property
    def is_settled(self) -> bool:
        """Whether, beside, every epoch was considered for the best one."""
        return self.is_finished and not self.waiting


def read_state(folder: Path) -> TrainState:
    """Read ``state.json`` of a checkpoint folder.

    Raises:
        CheckpointError: missing, or not a state.
    """
    path = folder / "state.json"
    try:
        return TrainState.model_validate(read_json(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint here; `temper train RECIPE` makes one") from None
    except (OSError, ValueError) as problem:  # pydantic's, too
        raise CheckpointError(f"{path}: not a checkpoint's state ({problem})") from None


Parts = dict[str, dict[str, Tensor]]
"""Name of a file under ``last/`` -> its tensors."""


def save_checkpoint(run: RunFolder, state: TrainState, parts: Parts, best: TaskModel | None = None) -> None:
    """Write the newest position under ``last/`` and, where an epoch has ended, ``checkpoint/``.

    ``parts`` is all that the next step goes on from; ``best`` is the model as it is validated, where the
    epoch is the best so far. The state is written after the weights it speaks of, each file by rename, and
    the weights carry their position in their name: a crash at any moment leaves the former checkpoint whole.
    """
    written = {name: tensors for name, tensors in parts.items() if tensors}
    state = state.model_copy(update={"parts": sorted(written)})
    if best is not None:
        save_model(best, run.checkpoint / "model.safetensors")
    if state.underway is None:
        _write_state(run.checkpoint, state)
    for name, tensors in written.items():
        packed = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        write_atomic(_part_of(run, state, name), save(packed))
    _write_state(run.last, state)
    for path in run.last.glob("epoch-*"):
        if not path.name.startswith(f"{state.stem}."):
            path.unlink(missing_ok=True)


def _part_of(run: RunFolder, state: TrainState, name: str) -> Path:
    return run.last / f"{state.stem}.{name}.safetensors"


def save_last(run: RunFolder, state: TrainState) -> None:
    """Write how far a run is that has trained no further."""
    _write_state(run.last, state)


def save_state(run: RunFolder, state: TrainState) -> None:
    """Write what has become known of a run that has trained no further."""
    _write_state(run.checkpoint, state)
    save_last(run, state)


def _write_state(folder: Path, state: TrainState) -> None:
    write_atomic(folder / "state.json", state.model_dump_json(indent=2))


def restore(run: RunFolder, fresh: TrainState) -> TrainState:
    """The state from which to go on: that of ``last/`` if there is one, else ``fresh``.

    Raises:
        CheckpointError: the folder holds another run, or the images have changed since.
    """
    if not (run.last / "state.json").exists():
        return fresh
    state = read_state(run.last)
    if state.recipe_hash != fresh.recipe_hash:
        raise CheckpointError(
            f"{run.path}: holds a run of another recipe; choose another --out, or remove it"
        )
    if state.fingerprints != fresh.fingerprints:
        raise CheckpointError(
            f"{run.path}: the images have changed since this run began; choose another --out"
        )
    return state


def restore_model(run: RunFolder, state: TrainState, model: TaskModel) -> None:
    """Give ``model`` the weights of ``state``, where there are any.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    if state.has_begun:
        load_model_state(model, _part_of(run, state, "model"))


def read_parts(run: RunFolder, state: TrainState) -> Parts:
    """All parts of ``last/`` but the model, by their names; what had no tensors is not among them.

    Raises:
        CheckpointError: missing, or damaged.
    """
    names = state.parts
    if names is None:
        found = run.last.glob(f"{state.stem}.*.safetensors")
        names = [path.name.removeprefix(f"{state.stem}.").removesuffix(".safetensors") for path in found]
    return {name: _read_part(_part_of(run, state, name), run) for name in names if name != "model"}


def _read_part(path: Path, run: RunFolder) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as problem:
        raise CheckpointError(
            f"{path}: missing or damaged ({problem}); remove {run.last} to start afresh"
        ) from None


def digest_of(names: Sequence[str]) -> str:
    """Tells one set of trainable parameters from another."""
    return content_hash(sorted(names))
