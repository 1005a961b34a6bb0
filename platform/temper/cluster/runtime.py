"""Starting and joining Ray, quietly."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from temper.cluster.resources import LIMITS, limits
from temper.errors import TemperError, UsageError

QUIET_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""A process less for each trainer: nobody takes one's own machine away with notice."""

START_ATTEMPTS = 3
KNOCK_S = 10

NOISY_LOGGERS = ("ray", "ray.data", "ray.tune", "ray.train")


def start_ray(*, verbose: bool = False) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (a job's own, under ``ray job submit``), or start one here.

    Raises:
        UsageError: ``RAY_AUTH_MODE`` is empty, which Ray would silently take for no authentication.
        TemperError: Ray does not start, or nothing answers at ``RAY_ADDRESS``.
    """
    if os.environ.get("RAY_AUTH_MODE") == "":
        raise UsageError(
            "RAY_AUTH_MODE is empty, which silently turns authentication off: set 'token', or unset it"
        )
    is_own = "RAY_ADDRESS" not in os.environ
    for name, value in (QUIET_ENVIRONMENT | (LOCAL_ENVIRONMENT if is_own else {})).items():
        os.environ.setdefault(name, value)
    import ray

    if not ray.is_initialized():
        # Left to itself, Ray joins whatever was last started here, or waits for what is gone.
        address = os.environ.get("RAY_ADDRESS", "local")
        _knock(address)
        _start(address, attempts=START_ATTEMPTS if is_own else 1, verbose=verbose)
    if not verbose:
        quiet_ray()


def _start(address: str, attempts: int, verbose: bool) -> None:
    """Ray gives its own processes 30 s to start, which a machine that is very busy may exceed."""
    import ray

    # With Ray's dashboard (1 GB): Ray Train asks it for trainers that have died, to free their CPUs.
    for attempt in range(1, attempts + 1):
        try:
            with _quiet_warnings():
                ray.init(
                    address=address,
                    log_to_driver=verbose,
                    logging_level=logging.INFO if verbose else logging.ERROR,
                    configure_logging=True,
                    runtime_env=_runtime_env(),
                )
            return
        except Exception as problem:  # Ray raises a bare Exception
            ray.shutdown()
            if attempt == attempts:
                where = "Ray did not start" if address == "local" else f"RAY_ADDRESS: {address}"
                raise TemperError(f"{where}: {problem}") from problem


def _knock(address: str) -> None:
    """Fail at once if nothing answers at ``HOST:PORT``; Ray itself tries for minutes, silently."""
    host, _, port = address.rpartition(":")
    if "/" in address or not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as problem:
        raise TemperError(
            f"RAY_ADDRESS: cannot connect to {address} ({problem}); is the head running? Unset RAY_ADDRESS "
            "to start Ray here"
        ) from None


def _runtime_env() -> dict[str, Any] | None:
    """Variables that workers need from their driver: trials on other nodes choose GPUs, too."""
    if not limits():
        return None
    return {"env_vars": {LIMITS: os.environ[LIMITS]}}


def quiet_ray() -> None:
    """Keep Ray's own lines out of this process's output."""
    import ray.data

    for name in NOISY_LOGGERS:
        # What goes wrong in a worker reaches users through our own errors and the ledger.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False


@contextmanager
def _quiet_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def result_of(reference: Any) -> Any:
    """What a task returned.

    Raises:
        TemperError: the task's own, without Ray's traceback; or how its process died.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as problem:
        raise own_error(problem) from problem


def own_error(problem: Exception) -> TemperError:
    """The original error inside Ray's, or an error that says how the process died."""
    cause = getattr(problem, "cause", None)
    if isinstance(cause, TemperError):
        return cause
    return TemperError(f"a worker failed: {problem}")
