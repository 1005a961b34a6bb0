"""What the shards know of the evaluated images beside their classes, beside their outcomes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from temper.data import GROUP, ShardSet
from temper.evaluation import Evaluation
from temper.statistics import slices_of
from temper.statistics.slices import PREFIX

MAX_VALUES = 50
"""Of an attribute; one of more values, such as a date, makes no slices."""


def sliced(evaluation: Evaluation, shards: ShardSet | None, rows: np.ndarray) -> Evaluation:
    """The same with a column of outcomes for each attribute, and accuracies of its values."""
    table = evaluation.outcomes
    columns = {name: table[name].to_numpy() for name in ("correct", "robust")}
    found = attributes_of(shards, rows)
    for name, values in found.items():
        table = table.append_column(name, pa.array(values.tolist(), pa.string()))
    unsliced = without_slices(shards, found)
    return replace(evaluation, outcomes=table, slices=slices_of({**columns, **found}), unsliced=unsliced)


def without_slices(shards: ShardSet | None, found: Mapping[str, np.ndarray]) -> list[str] | None:
    """Attributes of the shards that are not among the ``found`` columns; ``None`` without shards."""
    if shards is None:
        return None
    return [name for name in shards.manifest.attributes if PREFIX + name not in found]


def attributes_of(shards: ShardSet | None, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Column of outcomes -> text of each of ``rows`` (N,); groups, of a few images each, are left out."""
    found: dict[str, np.ndarray] = {}
    if shards is None:
        return found
    for name in shards.manifest.attributes:
        values = np.array([value or "" for value in shards.column(name)], np.str_)[rows]
        if name != GROUP and 1 <= len(set(values.tolist()) - {""}) <= MAX_VALUES:
            found[PREFIX + name] = values
    return found
