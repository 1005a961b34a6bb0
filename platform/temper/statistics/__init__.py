"""How sure a proportion is, and whether two of them differ. It imports neither torch nor ray.

All intervals are at 95 %, all p-values are two-sided.
"""

from temper.statistics.balanced import balanced_proportion, paired_balanced_p
from temper.statistics.classification import (
    baselines,
    choose_threshold,
    confusion,
    most_confident,
    operating_point,
    positive_scores,
    roc_curve,
    validation_beside,
)
from temper.statistics.further_tests import numbers_of_test
from temper.statistics.paired import (
    NUM_RESAMPLES,
    Cells,
    bootstrap_difference,
    count_cells,
    holm,
    mcnemar,
    newcombe,
    sign_flip_test,
)
from temper.statistics.pairwise import pairwise_mid_p, pairwise_unpaired_p, shared_ranks
from temper.statistics.proportions import drop_between, fisher_exact, wilson
from temper.statistics.slices import slices_of
from temper.statistics.spread import corrected_interval, fold_spread, t_interval

__all__ = [
    "NUM_RESAMPLES",
    "Cells",
    "balanced_proportion",
    "baselines",
    "bootstrap_difference",
    "choose_threshold",
    "confusion",
    "corrected_interval",
    "count_cells",
    "drop_between",
    "fisher_exact",
    "fold_spread",
    "holm",
    "mcnemar",
    "most_confident",
    "newcombe",
    "numbers_of_test",
    "operating_point",
    "paired_balanced_p",
    "pairwise_mid_p",
    "pairwise_unpaired_p",
    "positive_scores",
    "roc_curve",
    "shared_ranks",
    "sign_flip_test",
    "slices_of",
    "t_interval",
    "validation_beside",
    "wilson",
]
