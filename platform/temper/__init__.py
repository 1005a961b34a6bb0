"""temper: make a pretrained vision model yours, and hard to fool."""

import importlib
from typing import Any

__all__ = [
    "__version__",
    "calibrate",
    "evaluate",
    "export",
    "fit",
    "leaderboard",
    "load_recipe",
    "predict",
    "resume_sweep",
    "sweep",
    "train",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``temper.train`` and so on, whose packages take seconds to import, when they are asked for."""
    if name == "leaderboard":
        # The package of that name, which can be called: importing any part of it binds the name anyway.
        return importlib.import_module("temper.leaderboard")
    if name in __all__:
        return getattr(importlib.import_module("temper.api"), name)
    raise AttributeError(f"module 'temper' has no attribute {name!r}")
