"""How many runs fit on the cluster at once, and what each asks for."""

from dataclasses import dataclass

from temper.cluster.resources import LIMITS, num_cpus, num_gpus, wants_gpu
from temper.errors import SearchSpaceError
from temper.recipe import WorkersSpec


@dataclass(frozen=True)
class Share:
    """What one worker takes of the cluster."""

    cpus: int
    gpus: float

    @classmethod
    def of(cls, workers: WorkersSpec) -> "Share":
        return cls(workers.cpus_per_worker, workers.gpus_per_worker if wants_gpu(workers.use_gpu) else 0.0)


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
            f"lower cpus_per_worker or num_workers, or, where it grows, say how far in {LIMITS}"
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
