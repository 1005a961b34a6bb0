"""What one process of a run knows of the others: rank, device, and how values are shared."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Report = Callable[[Mapping[str, Any]], None]


class Worker:
    """One training process. This one is alone; ``DistributedWorker`` has company.

    ``report`` is called on every rank after each epoch with that epoch's metrics; whoever launched the
    worker may stop the run from inside it by raising.
    """

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str = "cpu", report: Report | None = None) -> None:
        self.device = torch.device(device)
        self._report = report

    @property
    def is_chief(self) -> bool:
        """Whether this rank writes the run's files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module whose backward pass leaves the same gradients on every rank.

        Called once per phase: DDP reads ``requires_grad`` when it wraps, and silently leaves out a
        parameter that is unfrozen later.
        """
        return model

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the ranks."""
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the chief's buffers of ``model``.

        After a step, each rank's BatchNorm statistics are still those of its own batches.
        """

    def barrier(self) -> None:
        """Wait for the other ranks."""

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Tell the launcher that an epoch has ended."""
        if self._report is not None:
            self._report(metrics)


class Substitute(Worker):
    """Does what one of ``world_size`` ranks would do alone, on ``device``: its share, its random numbers."""

    def __init__(self, device: torch.device | str, rank: int, world_size: int) -> None:
        super().__init__(device)
        self.rank, self.world_size = rank, world_size


class DistributedWorker(Worker):
    """One rank of an initialised ``torch.distributed`` process group."""

    def __init__(self, device: torch.device | str = "cpu", report: Report | None = None) -> None:
        super().__init__(device, report)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def wrap(self, model: nn.Module) -> nn.Module:
        device_ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids)

    def sum(self, values: Tensor) -> Tensor:
        total = values.to(self.device).clone()
        dist.all_reduce(total)
        return total.to(values.device)

    def share_buffers(self, model: nn.Module) -> None:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        dist.barrier()
