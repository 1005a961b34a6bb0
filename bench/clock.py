"""Clocks of rows: processor time of one thread, or of many processes together."""

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psutil
import torch

SAMPLED_EVERY_S = 0.5


def cpu_seconds(work: Callable[[], object]) -> float:
    """What ``work`` takes of one processor; with more threads, waiting would count as well."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.process_time()
        work()
        return time.process_time() - started
    finally:
        torch.set_num_threads(count)


class ProcessorTime:
    """What processes take of the processor while it is open, in ``seconds``; they may come and go.

    Ray's workers do: what one has used is gone with it, so all are looked at again and again. The last half
    second of one that ends is missed.
    """

    def __init__(self, processes: Callable[[], list[psutil.Process]]) -> None:
        self._processes = processes
        self._used = dict[psutil.Process, float]()
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self._look()
        self._before = sum(self._used.values())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._look()
        self.seconds = sum(self._used.values()) - self._before

    def _watch(self) -> None:
        while not self._is_over.wait(SAMPLED_EVERY_S):
            self._look()

    def _look(self) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._used[process] = times.user + times.system


def this_process() -> list[psutil.Process]:
    return [psutil.Process()]


def all_processes() -> list[psutil.Process]:
    """This one and whatever it has started."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]
