"""A pace for Ray Data's executor, which is a thread of the process that reads: with streams, that trains.

Where a stream is decoded faster than it is read, and the object store holds no more, Ray's loop (2.60) finds
results that it may not take yet, waits for nothing and begins anew at once. It then keeps a processor busy,
and Python's lock, for which training waits between its calls: an epoch took three times as long.
"""

import time
from typing import Any

STEP_S = 0.03
"""At least, from step to step: a decoded window waits no longer for Ray to see it."""


class Paced:
    """One of ``DataContext.custom_execution_callback_classes``."""

    def __init__(self) -> None:
        self._due = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing is to be done."""

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(max(0.0, self._due - time.perf_counter()))
        self._due = time.perf_counter() + STEP_S

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing is to be done."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing is to be done."""
