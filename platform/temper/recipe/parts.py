"""Parts of a recipe that belong to no other package: start, validation, checkpoints, workers, arithmetic."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from temper.hardening import AnyAdversary
from temper.spec import Spec

Metric = Literal[
    "val/target/clean_acc",
    "val/target/balanced_acc",
    "val/target/robust_acc",
    "val/target/robust_balanced_acc",
]


class PretrainSpec(Spec):
    """Trains the backbone on the source task first, if there are no pretrained weights."""

    epochs: int = Field(ge=1, le=10_000)
    lr: float | None = Field(default=None, gt=0)
    """``null``: as in ``optim``."""
    adversary: AnyAdversary | None = None
    """Hardens the start itself: a robust start transfers robustness."""


class ValidationSpec(Spec):
    """How epochs are compared: PGD within the recipe's threat model, on the validation split."""

    every_epochs: int = Field(default=1, ge=1)
    steps: int = Field(default=10, ge=0, le=1000)
    """Steps of PGD; 0 skips robust accuracy."""
    max_images: int | None = Field(default=None, ge=1)
    """A fixed stratified subset of the validation split; ``null``: all of it."""
    metric: Metric | None = None
    """Chooses the best epoch. ``null``: ``robust_acc`` of a hardened run, else ``clean_acc``."""
    patience: int | None = Field(default=None, ge=1)
    """Stops the run after this many validations without improvement: robust overfitting (Rice et al. 2020,
    arXiv:2002.11569) only gets worse. ``null``: never.
    """
    is_asynchronous: bool = False
    """Validates in a separate task while the Ray Train workers keep training. The results, and so the best
    epoch, are the same; they only arrive later.
    """


class CheckpointSpec(Spec):
    """How often a run is saved within an epoch, besides after each epoch. No result depends on it."""

    every_minutes: float | None = Field(default=10.0, gt=0, le=100_000)
    """``null``: not by time."""
    every_steps: int | None = Field(default=None, ge=1)
    """Counted from the start of each epoch; ``null``: not by steps."""


NumWorkers = Annotated[int, Field(ge=0, le=4096)]


class WorkersSpec(Spec):
    """Where a run computes. 0 workers: in the calling process, without Ray Train."""

    num_workers: NumWorkers | tuple[NumWorkers, NumWorkers] = 0
    """A number, or the smallest and the largest: as many Ray Train workers as fit on the cluster, more or
    fewer as nodes join and leave. They share ``data.batch_size``, which is split for the largest number.
    """
    cpus_per_worker: int = Field(default=1, ge=1, le=256)
    """Also the number of torch threads. It is fixed, not taken from the machine, because another number adds
    in another order and changes the result. More than 1 helps only on idle cores.
    """
    use_gpu: bool | Literal["auto"] = "auto"
    gpus_per_worker: float = Field(default=1.0, gt=0, le=1)
    """Below 1, several trials of a sweep share a GPU, and must fit into its memory together."""

    @field_validator("num_workers")
    @classmethod
    def _smallest_first(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(value, tuple) and not 1 <= value[0] <= value[1]:
            raise ValueError(f"[smallest, largest] with 1 <= smallest <= largest, got {list(value)}")
        return value

    @property
    def is_elastic(self) -> bool:
        """Whether workers may join and leave."""
        return isinstance(self.num_workers, tuple)

    @property
    def min_workers(self) -> int:
        return self.num_workers[0] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def max_workers(self) -> int:
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def num_shares(self) -> int:
        """Parts into which each batch is cut."""
        return max(1, self.max_workers)


class ComputeSpec(Spec):
    """How the arithmetic is done. ``auto`` is decided by the device, or else measured at the start."""

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Precision of training. ``auto``: bf16 on a GPU that supports it, fp32 elsewhere. ``tf32``: fp32 with
    10-bit convolutions and products on GPUs that support it (elsewhere fp32). Evaluation always uses fp32.
    """
    compile: bool | Literal["auto"] = False
    """torch.compile of the backbone: half a minute at the start, for faster steps."""
    channels_last: bool | Literal["auto"] = True
