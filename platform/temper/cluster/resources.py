"""What the cluster has, and what it may grow to."""

import os
from typing import Any

from temper.errors import UsageError

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
            raise UsageError(f"{LIMITS}: {text!r} is not understood; as in 'CPU=128,GPU=10'")
        found[resource] = int(number)
    return found
