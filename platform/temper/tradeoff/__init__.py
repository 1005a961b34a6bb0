"""Several objectives at once: what cannot be bettered, how much it covers, and what decides it.

It imports neither torch nor ray, and scikit-learn only where a forest is grown.
"""

from temper.tradeoff.agreement import LEAST_KENDALL, LEAST_MODELS, rank_agreement
from temper.tradeoff.front import hypervolume, pareto_front
from temper.tradeoff.importance import Importance, ParameterImportance, importance

__all__ = [
    "LEAST_KENDALL",
    "LEAST_MODELS",
    "Importance",
    "ParameterImportance",
    "hypervolume",
    "importance",
    "pareto_front",
    "rank_agreement",
]
