"""Accuracy on a further test set, beside that on the main test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from temper.records import Proportion
from temper.statistics.balanced import balanced_proportion
from temper.statistics.proportions import drop_between, wilson


def numbers_of_test(
    columns: Mapping[str, np.ndarray], clean_acc: Proportion, robust_acc: Proportion
) -> dict[str, Any]:
    """The fields of a ``FurtherTestRecord`` that follow from the columns (N,) of its outcomes.

    ``clean_acc`` and ``robust_acc`` are those of the main test images.
    """
    labels, correct, robust = (columns[name] for name in ("label", "correct", "robust"))
    clean, standing = (wilson(int(mask.sum()), len(labels)) for mask in (correct, robust))
    return {
        "num_images": len(labels),
        "clean_acc": clean,
        "robust_acc": standing,
        "balanced_acc": balanced_proportion(correct, labels)[0],
        "robust_balanced_acc": balanced_proportion(robust, labels)[0],
        "clean_drop": drop_between(clean_acc, clean),
        "robust_drop": drop_between(robust_acc, standing),
    }
