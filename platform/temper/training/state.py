"""The state of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from temper.errors import CheckpointError
from temper.records import Depth
from temper.safe_load import read_json
from temper.spec import Spec, content_hash, first_problem
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
    """``state.json``: which run this is, its position, and its best epoch so far."""

    recipe_hash: str
    classes: dict[str, list[str]]
    fingerprints: dict[str, str]
    depth: Depth | None = None
    """How target images of more than 8 bits were scaled; ``null``: there were none, or it is not known."""
    start_weights: str | None
    """Where the run started from: a file or run folder, ``pretrained``, or ``null`` for a random start."""
    num_epochs: int
    batch_size_is_of: Literal["worker", "run"] = "worker"
    """What ``data.batch_size`` counted when this run began: of each worker, up to version 0.1."""
    next_epoch: int = 0
    underway: Underway | None = None
    """What of ``next_epoch`` is done already."""
    parts: list[str] | None = None
    """Files of weights beside this one under ``last/``; ``null``: from before they were noted."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """Of each of them; empty: from before they were noted."""
    best_sha256: str | None = None
    """Of ``checkpoint/model.safetensors``; ``null``: none yet, or from before it was noted."""
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
        """Whether there are weights to resume from."""
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
        """Whether it is finished and every epoch was considered for the best one."""
        return self.is_finished and not self.waiting


def read_state(folder: Path, advice: str = "put it back, or train again with another --out") -> TrainState:
    """Read ``state.json`` of a checkpoint folder; ``advice`` is for one that is damaged.

    Raises:
        CheckpointError: missing, or not a state.
    """
    path = folder / "state.json"
    try:
        return TrainState.model_validate(read_json(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint here; create one with `temper train RECIPE`") from None
    except (OSError, ValueError) as problem:  # pydantic's, too
        raise CheckpointError(
            f"{path}: not a checkpoint's state ({first_problem(problem)}); {advice}"
        ) from None


def digest_of(names: Sequence[str]) -> str:
    """Tells one set of trainable parameters from another."""
    return content_hash(sorted(names))
