"""``outcomes.parquet``: the outcome of every test image."""

import numpy as np
import pyarrow as pa

from temper.evaluation.chunk_outcome import CascadeOutcome, ChunkOutcome
from temper.evaluation.corruptions import GROUPS, SEVERITIES


def outcomes_table(rows: np.ndarray, found: ChunkOutcome, main: CascadeOutcome) -> pa.Table:
    """One row per image: its number in the shards, label, clean answer, and each member's work.

    Columns of the ``main`` threat model are named after the members, those of others after the threat too.
    """
    clean = found.clean
    columns: dict[str, pa.Array] = {
        "row": pa.array(rows, pa.int64()),
        "label": pa.array(clean.labels.numpy(), pa.int64()),
        "prediction": pa.array(clean.prediction.numpy(), pa.int64()),
        "correct": pa.array(clean.correct.numpy(), pa.bool_()),
        "confidence": pa.array(clean.confidence.numpy(), pa.float64()),
    }
    for cascade in found.cascades:
        prefix = "" if cascade is main else f"{cascade.threat.label}/"
        for member in cascade.members:
            name = f"{prefix}{member.name}"
            columns[f"{name}/attacked"] = pa.array(member.attacked.numpy(), pa.bool_())
            columns[f"{name}/fooled"] = pa.array(member.fooled.numpy(), pa.bool_())
            columns[f"{name}/prediction"] = pa.array(member.prediction.numpy(), pa.int64())
            columns[f"{name}/distance"] = pa.array(member.distance.numpy(), pa.float32())
        if cascade is not main:
            columns[f"{prefix}robust"] = pa.array(cascade.standing.numpy(), pa.bool_())
    for group, correct in found.corrupted.items():
        names = [f"{kind}/{severity}" for kind in GROUPS[group] for severity in SEVERITIES]  # type: ignore[index]
        for name, column in zip(names, correct.numpy().T, strict=True):
            columns[f"{group}/{name}/correct"] = pa.array(column, pa.bool_())
    if found.minimum_norms is not None:
        columns["minimum_norm"] = pa.array(found.minimum_norms.numpy(), pa.float32())
    columns["robust"] = pa.array(main.standing.numpy(), pa.bool_())
    return pa.table(columns)
