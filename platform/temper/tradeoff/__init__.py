"""Several objectives at once: what cannot be bettered, how much it covers, and what decides it.

It imports neither torch nor ray, and scikit-learn only where a forest is grown.
"""

from temper.tradeoff.agreement import rank_agreement
from temper.tradeoff.front import hypervolume, pareto_front
from temper.tradeoff.importance import Importance, importance

__all__ = [
    "Importance",
    "hypervolume",
    "importance",
    "pareto_front",
    "rank_agreement",
]
