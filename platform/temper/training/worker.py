"""One process of a run among the others: rank, device, and shared values."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Report = Callable[[Mapping[str, Any]], None]


class Action(IntEnum):
    """What is to be done between two steps."""

    CONTINUE = 0
    SAVE = 1
    """This process, or another of the run, may soon be gone."""
    STOP = 2
    """Save, and end in order."""


Notice = Callable[[], Action]


class Worker:
    """One training process, alone; ``DistributedWorker`` is one of several.

    ``report`` is called on every rank after each epoch with that epoch's metrics; whoever launched the
    worker may stop the run from inside it by raising. ``notice`` is asked about every second, between steps.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        device: torch.device | str = "cpu",
        report: Report | None = None,
        notice: Notice | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._report, self._notice = report, notice

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

    def gather(self, values: Tensor) -> Tensor:
        """``values`` (...) of every rank (W,...), the same on each of them."""
        return values[None]

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the chief's buffers of ``model``.

        BatchNorm's are the same on each rank; those of a network's own layers may follow its part of a batch.
        """

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Inside, a backward pass of what ``wrap`` gave adds to this rank's own gradients only."""
        return nullcontext()

    def barrier(self) -> None:
        """Wait for the other ranks."""

    def action(self) -> Action:
        """The action that the launcher of this process asks for."""
        return Action.CONTINUE if self._notice is None else self._notice()

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Tell the launcher that an epoch has ended."""
        if self._report is not None:
            self._report(metrics)


class Substitute(Worker):
    """Does alone, on ``device``, the work of one of ``world_size`` ranks."""

    def __init__(self, device: torch.device | str, rank: int, world_size: int) -> None:
        super().__init__(device)
        self.rank, self.world_size = rank, world_size


class DistributedWorker(Worker):
    """One rank of an initialised ``torch.distributed`` process group."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        report: Report | None = None,
        notice: Notice | None = None,
    ) -> None:
        super().__init__(device, report, notice)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def wrap(self, model: nn.Module) -> nn.Module:
        if self.world_size == 1:
            return model
        device_ids = [self.device] if self.device.type == "cuda" else None
        # The loop shares them itself, before the attack reads them.
        return DistributedDataParallel(model, device_ids=device_ids, forward_sync_buffers=False)

    def sum(self, values: Tensor) -> Tensor:
        total = values.to(self.device).clone()
        dist.all_reduce(total)
        return total.to(values.device)

    def gather(self, values: Tensor) -> Tensor:
        found = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(found, values.contiguous())
        return torch.stack(found)

    def share_buffers(self, model: nn.Module) -> None:
        if self.world_size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        # One message for all of a type: a message takes longer than the few numbers in it.
        for buffers in by_type.values():
            whole = torch.cat([buffer.flatten() for buffer in buffers])
            dist.broadcast(whole, 0)
            parts = torch.split(whole, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view_as(buffer))

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        if not isinstance(wrapped, DistributedDataParallel):  # nobody to wait for
            return nullcontext()
        own: AbstractContextManager[None] = wrapped.no_sync()
        return own

    def barrier(self) -> None:
        dist.barrier()
