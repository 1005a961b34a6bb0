"""Copies of a model that were never queried."""

import copy
from collections.abc import Callable

from torch import nn

Fresh = Callable[[], nn.Module]
"""Makes the model as it was before its first answer."""


def copies_of(model: nn.Module) -> Fresh | None:
    """Copies of ``model`` as it is now; ``None`` where it cannot be copied."""
    try:
        untouched = copy.deepcopy(model)
    except Exception:  # whatever a foreign module's attributes may raise
        return None
    return lambda: copy.deepcopy(untouched)
