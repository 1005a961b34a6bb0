"""The code and the machine that made the numbers."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "foolbox", "ray", "numpy", "pyarrow", "pillow", "simplejpeg")


def describe_environment() -> dict[str, Any]:
    """The code and the machine that a record was made with."""
    return {
        "git_commit": _git_commit(),
        "packages": {name: importlib.metadata.version(name) for name in ("temper", *PACKAGES)},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "num_threads": torch.get_num_threads(),
    }


def _git_commit() -> str | None:
    """The commit of the source tree that temper runs from; ``None`` where it was installed from a wheel."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],  # noqa: S607  # whichever git the user has
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
