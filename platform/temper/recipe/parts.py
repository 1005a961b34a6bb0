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
    """Training of the backbone on the source task first, where no pretrained weights are at hand."""

    epochs: int = Field(ge=1, le=10_000)
    lr: float | None = Field(default=None, gt=0)
    """``null``: the rate of ``optim``."""
    adversary: AnyAdversary | None = None
    """Hardens the start itself: a robust start transfers robustness."""


class ValidationSpec(Spec):
    """How epochs are compared: PGD within the recipe's threat model, on the validation split."""

    every_epochs: int = Field(default=1, ge=1)
    steps: int = Field(default=10, ge=0, le=1000)
    """Of PGD; 0 leaves robust accuracy out."""
    max_images: int | None = Field(default=None, ge=1)
    """A fixed stratified subset of the validation split; ``null``: all of it."""
    metric: Metric | None = None
    """Chooses the best epoch. ``null``: ``robust_acc`` of a hardened run, else ``clean_acc``."""
    patience: int | None = Field(default=None, ge=1)
    """Ends the run after so many validations without a better one: robust overfitting (Rice et al. 2020,
    arXiv:2002.11569) only gets worse. ``null``: never.
    """
    is_asynchronous: bool = False
    """Validates in a task beside the workers of Ray Train, who go on training meanwhile. The answers, and so
    the best epoch, are the same; they only come later.
    """


class CheckpointSpec(Spec):
    """How often a run is saved within an epoch; after each epoch it always is. No number depends on it."""

    every_minutes: float | None = Field(default=10.0, gt=0, le=100_000)
    """``null``: not by the clock."""
    every_steps: int | None = Field(default=None, ge=1)
    """Counted anew in each epoch; ``null``: not by the step."""


NumWorkers = Annotated[int, Field(ge=0, le=4096)]


class WorkersSpec(Spec):
    """Where a run computes. 0 workers: in the calling process, without Ray Train."""

    num_workers: NumWorkers | tuple[NumWorkers, NumWorkers] = 0
    """A number, or the smallest and the largest: as many workers of Ray Train as the cluster has room for,
    more or fewer as nodes come and go. They share out ``data.batch_size``, cut for the largest number.
    """
    cpus_per_worker: int = Field(default=1, ge=1, le=256)
    """Also the number of torch threads: other numbers add in another order, so it is no machine's own and the
    same seed gives the same result everywhere. More than 1 pays only on cores that are idle.
    """
    use_gpu: bool | Literal["auto"] = "auto"
    gpus_per_worker: float = Field(default=1.0, gt=0, le=1)
    """Below 1, several trials of a sweep share a GPU; they must fit into its memory together."""

    @field_validator("num_workers")
    @classmethod
    def _smallest_first(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(value, tuple) and not 1 <= value[0] <= value[1]:
            raise ValueError(f"[smallest, largest] with 1 <= smallest <= largest, got {list(value)}")
        return value

    @property
    def is_elastic(self) -> bool:
        """Whether workers may come and go."""
        return isinstance(self.num_workers, tuple)

    @property
    def max_workers(self) -> int:
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def num_shares(self) -> int:
        """Parts into which each batch is cut."""
        return max(1, self.max_workers)


class ComputeSpec(Spec):
    """How the arithmetic is done. What is ``auto`` and not decided by the device is measured at the start."""

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Of training; ``auto``: bf16 on a GPU that has it, fp32 elsewhere. ``tf32``: convolutions and products
    of an fp32 network with 10 bits, on GPUs that can (elsewhere it is fp32). Evaluation is always in fp32.
    """
    compile: bool | Literal["auto"] = False
    """torch.compile of the backbone: half a minute at the start, for faster steps."""
    channels_last: bool | Literal["auto"] = True
