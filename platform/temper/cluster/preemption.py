"""What makes a run save or end: a signal, a node that will be preempted, a new number of workers."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from temper.records import RunFolder
from temper.training import Action, Notice

SAVE_AGAIN_S = 15.0
"""Between saves on a node that will be preempted."""


@contextmanager
def until_sigterm(run: RunFolder) -> Iterator[Notice]:
    """A notice that says ``STOP`` once this process has got SIGTERM, also in workers that ask ``run``.

    Where something else handles the signal (Ray, in its own processes), this does nothing.
    """
    got = threading.Event()
    _forget(run)

    def on_signal(number: int, frame: Any) -> None:
        got.set()
        run.stop.parent.mkdir(parents=True, exist_ok=True)
        run.stop.touch()

    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, on_signal)
    try:
        yield lambda: Action.STOP if got.is_set() else Action.CONTINUE
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _forget(run)


def _forget(run: RunFolder) -> None:
    with suppress(OSError):  # write errors surface at the next checkpoint
        run.stop.unlink(missing_ok=True)


class WorkerNotice:
    """The notices that a Ray Train worker gets: the driver's SIGTERM, its controller's, its node's."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._saves_again = float("inf")
        # Ray has no watcher of nodes on a machine of one's own.
        self._is_watched = os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") != "0"
        self._known: Any = None

    def __call__(self) -> Action:
        """Called by all workers alike: Ray's question is answered to all of them at once."""
        if _asked.is_set() or self._run.stop.exists():
            return Action.STOP
        if not self._is_watched:
            return Action.CONTINUE
        import ray.train

        info, now = ray.train.get_preemption_info(), time.monotonic()
        if info is None or (info == self._known and now < self._saves_again):
            return Action.CONTINUE
        self._known, self._saves_again = info, now + SAVE_AGAIN_S
        return Action.SAVE


_asked, _ended = threading.Event(), threading.Event()
"""Of this worker's process: whether it was asked to stop, and whether its loop has ended."""


@contextmanager
def loop_that_can_be_asked() -> Iterator[None]:
    """Inside, ``ask_to_stop`` is heard, and waits until this is left."""
    _asked.clear()
    _ended.clear()
    try:
        yield
    finally:
        _ended.set()


def ask_to_stop(limit_s: float) -> bool:
    """Ask this process's loop to save and end; return whether it did within ``limit_s``."""
    _asked.set()
    return _ended.wait(limit_s)
