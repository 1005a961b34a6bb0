"""The training loop: takes batches, a worker and a tracker from outside, and knows nothing of Ray."""

from temper.training.feed import Feed
from temper.training.loop import train
from temper.training.plan import PhasePlan, plan_phases
from temper.training.state import TrainState, read_state
from temper.training.worker import DistributedWorker, Worker

__all__ = [
    "DistributedWorker",
    "Feed",
    "PhasePlan",
    "TrainState",
    "Worker",
    "plan_phases",
    "read_state",
    "train",
]
