"""Whether W&B runs go online: as the environment says, and only where their server can be reached."""

import functools
import logging
import os
import socket
import urllib.request
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""For a connection. W&B itself tries for a minute, for each run anew."""
INIT_TIMEOUT_S = 60.0
"""For W&B's own process to start, and for its server to answer; a loaded machine took 20 s for the first."""
PROJECT = "temper"
DISABLED = "disabled"
"""The mode in which nothing is kept."""


def choose_mode() -> str:
    """What ``WANDB_MODE`` says; else online where there is a key and a server that answers, else offline."""
    asked = os.environ.get("WANDB_MODE")
    if asked:
        return asked
    if not os.environ.get("WANDB_API_KEY"):
        return "offline"
    return "online" if _answers(_address()) else "offline"


def choose_project(project: str | None) -> str:
    """``project`` where it is given, else that of the environment."""
    return project or os.environ.get("WANDB_PROJECT") or PROJECT


def quiet_settings() -> Any:
    """Settings of W&B's that keep its hands off the console, the code and the machine."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        init_timeout=INIT_TIMEOUT_S,
        x_service_wait=INIT_TIMEOUT_S,
    )


def _address() -> str:
    import wandb

    return os.environ.get("WANDB_BASE_URL") or str(wandb.Settings().base_url)


@functools.cache
def _answers(address: str) -> bool:
    """Asked once in a process: whoever is offline now is so for all the runs of a command."""
    if urllib.request.getproxies():
        return True  # a proxy reaches what this machine does not
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE_S).close()
    except OSError as problem:
        logger.warning(
            "W&B at %s cannot be reached (%s): runs are kept offline; upload them later with `wandb sync`",
            parts.hostname,
            problem.strerror or problem,
        )
        return False
    return True
