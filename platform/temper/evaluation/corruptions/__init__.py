"""Common corruptions (Hendrycks and Dietterich 2019, arXiv:1903.12261) and medical ones.

Not attacks: nobody chooses the worst case. Add a kind: a function in the file of its family, and its settings
in ``catalogue.py``.
"""

from temper.evaluation.corruptions.catalogue import (
    CORRUPTIONS,
    GROUPS,
    MEDICAL,
    SEVERITIES,
    Corruption,
    Group,
    corrupt,
    find_corruption,
)
from temper.evaluation.corruptions.evaluate import CorruptionResult, OnCorruption, evaluate_corruptions
from temper.evaluation.corruptions.sheet import write_sheet

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "MEDICAL",
    "SEVERITIES",
    "Corruption",
    "CorruptionResult",
    "Group",
    "OnCorruption",
    "corrupt",
    "evaluate_corruptions",
    "find_corruption",
    "write_sheet",
]
