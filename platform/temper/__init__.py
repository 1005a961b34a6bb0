"""temper: make a pretrained vision model yours, and hard to fool."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.api import evaluate

__all__ = ["__version__", "evaluate"]

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """``temper.evaluate``, whose packages take seconds to import, when it is asked for."""
    if name == "evaluate":
        from temper.api import evaluate

        return evaluate
    raise AttributeError(f"module 'temper' has no attribute {name!r}")
