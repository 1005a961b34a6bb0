"""Where metrics go: always a local metrics.jsonl; TensorBoard's event files and W&B beside it."""

from pathlib import Path
from typing import Any

from temper.records import RunFolder, read_epochs
from temper.spec import Spec
from temper.tracking.base import NullTracker, Tracker, Trackers
from temper.tracking.event_files import TensorBoardTracker
from temper.tracking.jsonl import JsonlTracker
from temper.tracking.sweeps import track_sweep
from temper.tracking.wandb_boards import publish_board
from temper.tracking.wandb_runs import Resumed, WandbTracker, known_id

__all__ = [
    "JsonlTracker",
    "NullTracker",
    "Tracker",
    "TrackingSpec",
    "build_evaluation_tracker",
    "build_tracker",
    "publish_board",
    "track_sweep",
]


class TrackingSpec(Spec):
    """Tracking besides ``metrics.jsonl``. API keys come from the environment, never from a recipe."""

    wandb: bool = True
    """Offline unless WANDB_API_KEY or WANDB_MODE is set."""
    tensorboard: bool = True
    """Event files in the run folder: ``tensorboard --logdir runs`` shows them."""
    samples: bool = False
    """Which images each update used, under ``samples/`` of the run folder."""
    project: str | None = None
    """W&B project; ``null``: ``WANDB_PROJECT``, or ``temper``."""
    group: str | None = None
    """``null``: ``WANDB_RUN_GROUP``, or that of the sweep or cross-validation."""
    tags: tuple[str, ...] = ()
    """None: ``WANDB_TAGS``."""


def build_tracker(
    spec: TrackingSpec,
    run: RunFolder,
    *,
    name: str,
    config: dict[str, Any],
    start_epoch: int = 0,
    is_chief: bool = True,
) -> Tracker:
    """The trackers of one run; ranks other than the chief get one that keeps nothing."""
    if not is_chief:
        return NullTracker()
    logged = [row["epoch"] for row in read_epochs(run.metrics)]
    trackers: list[Tracker] = [JsonlTracker(run.metrics, start_epoch)]
    if spec.tensorboard:
        trackers.append(TensorBoardTracker(run.tensorboard, start_epoch))
    if spec.wandb:
        resumed = Resumed(
            run_id=known_id(run, is_new=start_epoch == 0 and bool(logged)),
            num_logged=sum(epoch < start_epoch for epoch in logged),
        )
        trackers.append(
            WandbTracker(Path(run.path), spec.project, spec.group, spec.tags, name, config, resumed=resumed)
        )
    return Trackers(trackers)


def build_evaluation_tracker(
    spec: TrackingSpec, written: RunFolder, *, name: str, config: dict[str, Any]
) -> Tracker:
    """What shows an evaluation: a W&B run beside that of the training, of the same name and group.

    Not the same run: W&B cannot resume one offline, and a record may be written far from its run.
    """
    if not spec.wandb:
        return NullTracker()
    return WandbTracker(written.path, spec.project, spec.group, spec.tags, name, config, job_type="evaluate")
