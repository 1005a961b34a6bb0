"""Common corruptions (Hendrycks and Dietterich 2019, arXiv:1903.12261), medical ones, and sets for a domain.

Not attacks: nobody chooses the worst case. Add a kind: a function in the file of its family, and its settings
in ``catalogue.py``.
"""

from temper.evaluation.corruptions.catalogue import (
    CORRUPTIONS,
    DOMAINS,
    GROUPS,
    KINDS,
    MEDICAL,
    corrupt,
    find_corruption,
)
from temper.evaluation.corruptions.contact_sheet import write_sheet
from temper.evaluation.corruptions.evaluate import CorruptionResult, OnCorruption, evaluate_corruptions
from temper.evaluation.corruptions.kind import SEVERITIES, Corruption, Group

__all__ = [
    "CORRUPTIONS",
    "DOMAINS",
    "GROUPS",
    "KINDS",
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
