"""Common corruptions (Hendrycks and Dietterich 2019, arXiv:1903.12261), medical ones, and sets for a domain.

Not attacks: nobody chooses the worst case. Add a kind: a function in the file of its family, and its settings
in ``catalogue.py``.
"""

from temper.evaluation.corruptions.catalogue import CORRUPTIONS, GROUPS, KINDS, MEDICAL, corrupt
from temper.evaluation.corruptions.evaluate import CorruptionResult, evaluate_corruptions
from temper.evaluation.corruptions.kind import SEVERITIES, Group

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "KINDS",
    "MEDICAL",
    "SEVERITIES",
    "CorruptionResult",
    "Group",
    "corrupt",
    "evaluate_corruptions",
]
