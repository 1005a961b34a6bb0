"""What temper finds on this machine."""

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("torch", "torchvision", "ray", "foolbox", "wandb", "pyarrow", "pydantic")
MIN_FREE_GB = 2


@dataclass(frozen=True)
class Finding:
    name: str
    passed: bool
    found: str


def examine() -> list[Finding]:
    """Every check, in the order of what rests on what."""
    return [
        Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()}, {platform.system()}"),
        *(_package(name) for name in PACKAGES),
        _accelerator(),
        Finding("cpus", True, str(os.cpu_count())),
        _disk(),
        _tracking(),
        _authentication(),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed; run `make install`")


def _accelerator() -> Finding:
    try:
        import torch
        import torchvision  # noqa: F401  # a build that does not fit torch's fails here
    except (ImportError, OSError, RuntimeError) as problem:
        return Finding("accelerator", False, f"torch or torchvision cannot be imported ({problem})")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("accelerator", True, ", ".join(names))
    return Finding("accelerator", True, "none; training runs on the CPU")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Finding("free disk", free >= MIN_FREE_GB, f"{free:.0f} GB")


def _tracking() -> Finding:
    mode = os.environ.get("WANDB_MODE") or (
        "online" if os.environ.get("WANDB_API_KEY") else "offline, no key set"
    )
    return Finding("W&B", True, mode)


def _authentication() -> Finding:
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode == "":
        return Finding(
            "RAY_AUTH_MODE", False, "empty, which silently turns authentication off: set 'token' or unset it"
        )
    return Finding("RAY_AUTH_MODE", True, mode or "not set")
