"""How sure a proportion is, and how much it differs between folds."""

from temper.statistics import fold_spread, wilson

__all__ = ["fold_spread", "wilson"]
