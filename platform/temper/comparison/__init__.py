"""Two evaluated models on the same images, from their records and outcomes: no torch, no ray."""

from temper.comparison.analysis import compare
from temper.comparison.page import to_markdown
from temper.comparison.record import ComparisonRecord, PairedDifference

__all__ = [
    "ComparisonRecord",
    "PairedDifference",
    "compare",
    "to_markdown",
]
