"""Cross-validation on Ray: folds x seeds x targets, one record, a plot and a table."""

from temper.cluster.crossval.driver import crossval
from temper.cluster.crossval.plan import CrossvalSpec

__all__ = ["CrossvalSpec", "crossval"]
