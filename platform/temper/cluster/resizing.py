"""Saving before the number of workers changes."""

from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from temper.cluster.preemption import ask_to_stop

STOP_LIMIT_S = 60.0
"""How long workers may take to end a step and save before their number changes anyway."""


class SaveBeforeResize(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]  # Ray's are untyped
    """A callback of Ray Train's controller, which would end the workers where they are (2.60, read)."""

    def __init__(self) -> None:
        self._is_resizing = False

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        self._is_resizing = True

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._is_resizing = False

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        if not self._is_resizing:
            return
        try:
            ray.get(worker_group.execute_async(ask_to_stop, STOP_LIMIT_S), timeout=STOP_LIMIT_S + 10)
        except ray.exceptions.RayError:
            return  # a worker is gone: the last save counts
