"""Resources of the cluster, now and fully grown, and how many runs fit on it at once."""

import logging
import os
from dataclasses import dataclass
from typing import Any

from temper.errors import SearchSpaceError, UsageError
from temper.recipe import WorkersSpec

logger = logging.getLogger(__name__)
LIMITS = "TEMPER_CLUSTER_MAX"
"""Environment variable that says how far a cluster grows, as in ``CPU=128,GPU=10``; cluster.yaml sets it.

Ray's autoscaler tells nobody: a job sees the nodes that are up, which on a head alone is none.
"""


def num_cpus() -> int:
    """CPUs of the whole cluster, when it has grown as far as it may."""
    return _num("CPU")


def num_gpus() -> int:
    """GPUs of the whole cluster, when it has grown as far as it may."""
    return _num("GPU")


def wants_gpu(use_gpu: Any) -> bool:
    """Whether a worker gets a GPU: as the recipe says, or, with ``auto``, where the cluster has one."""
    return num_gpus() > 0 if use_gpu == "auto" else bool(use_gpu)


def _num(resource: str) -> int:
    import ray

    return max(int(ray.cluster_resources().get(resource, 0)), limits().get(resource, 0))


def limits() -> dict[str, int]:
    """What ``TEMPER_CLUSTER_MAX`` says; empty where it is not set.

    Raises:
        UsageError: it says something else.
    """
    text = os.environ.get(LIMITS, "")
    found = {}
    for part in text.split(",") if text else []:
        resource, _, number = part.strip().partition("=")
        if resource not in ("CPU", "GPU") or not number.isdecimal():
            raise UsageError(f"{LIMITS}: cannot parse {text!r}; expected a form such as 'CPU=128,GPU=10'")
        found[resource] = int(number)
    return found


@dataclass(frozen=True)
class Share:
    """What one worker takes of the cluster."""

    cpus: int
    gpus: float

    @classmethod
    def of(cls, workers: WorkersSpec) -> "Share":
        return cls(workers.cpus_per_worker, workers.gpus_per_worker if wants_gpu(workers.use_gpu) else 0.0)


def check_room(workers: WorkersSpec) -> None:
    """Check that a run's workers find room; Ray itself would wait for it without a word.

    A cluster that others have started may grow, so that there it is only said.

    Raises:
        UsageError: this machine, or a cluster that has grown as far as it may, has too little.
    """
    share, count = Share.of(workers), workers.min_workers
    for resource, each, found, field in (
        ("CPU", share.cpus, num_cpus(), "workers.cpus_per_worker"),
        ("GPU", share.gpus, num_gpus(), "workers.gpus_per_worker, or set workers.use_gpu: false"),
    ):
        if each * count <= found + 1e-9:
            continue
        problem = f"workers: {resource}s needed: {count} x {each:g}, available: {found}"
        if "RAY_ADDRESS" not in os.environ or limits():
            raise UsageError(f"{problem}; lower workers.num_workers or {field}")
        logger.warning("%s: waiting until the cluster has grown; if it cannot, stop with Ctrl-C", problem)


def max_concurrent(workers: WorkersSpec) -> int:
    """Runs that fit on the cluster at once: Ray Tune does not see what nested workers take.

    Raises:
        SearchSpaceError: not even one fits.
    """
    share, count = Share.of(workers), workers.num_shares
    fitting = num_cpus() // (share.cpus * count)
    if fitting == 0:
        raise SearchSpaceError(
            f"workers: a trial needs {share.cpus * count} CPUs, the cluster has {num_cpus()}; "
            f"lower cpus_per_worker or num_workers, or, if the cluster grows, set its limit in {LIMITS}"
        )
    if share.gpus:
        on_gpus = int(num_gpus() / (share.gpus * count) + 1e-9)
        if on_gpus == 0:
            raise SearchSpaceError(
                f"workers: a trial needs {share.gpus * count:g} GPUs, the cluster has {num_gpus()}; "
                "lower gpus_per_worker or num_workers, or set use_gpu: false"
            )
        fitting = min(fitting, on_gpus)
    return fitting
