"""Batches that are copied to the GPU while it still computes the previous step."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch

from temper.batches import Batch

Item = TypeVar("Item")


def prefetched(batches: Iterable[dict[str, Batch]], device: torch.device) -> Iterator[dict[str, Batch]]:
    """``batches`` (of each task) whose images and labels lie on a CUDA ``device``; as they are on any other.

    A stream of its own copies each out of pinned memory before the step before it has ended. Rows stay on
    the CPU, where they are read.
    """
    if device.type != "cuda":
        return iter(batches)
    sender = Sender(device)
    return one_ahead(batches, sender.send, sender.receive)


def one_ahead(
    items: Iterable[Item], send: Callable[[Item], Item], receive: Callable[[Item], Item]
) -> Iterator[Item]:
    """Each of ``items``, received only when it is asked for, and sent when the one before it is."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(send(item))
        if len(waiting) > 1:
            yield receive(waiting.pop(0))
    for item in waiting:
        yield receive(item)


class Sender:
    """Copies on a stream beside that of the computations."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, batches: dict[str, Batch]) -> dict[str, Batch]:
        """On their way; nobody waits."""
        with torch.cuda.stream(self._stream):
            return {
                task: replace(batch, images=self._copy(batch.images), labels=self._copy(batch.labels))
                for task, batch in batches.items()
            }

    def receive(self, batches: dict[str, Batch]) -> dict[str, Batch]:
        """The same, which the computations that follow wait for."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for batch in batches.values():
            for tensor in (batch.images, batch.labels):
                tensor.record_stream(current)  # its memory is not given away before they have read it
        return batches

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.pin_memory().to(self._device, non_blocking=True)
