"""Reading and writing ``outcomes.parquet``: what happened to every test image.

PyArrow is imported late: commands that read only ``record.json`` start without it.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from temper.errors import RecordError
from temper.records.files import write_once

if TYPE_CHECKING:
    import pyarrow as pa


def write_outcomes(path: Path, table: "pa.Table") -> None:
    """Write the table where none is yet.

    Raises:
        RecordError: ``path`` exists.
    """
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_once(path, buffer.getvalue())


def read_outcomes(path: Path) -> "pa.Table":
    """Read the table back.

    Raises:
        RecordError: missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:  # read_table imports pandas
            return file.read()
    except (OSError, pa.ArrowException) as problem:
        raise RecordError(f"{path}: not readable as outcomes ({problem})") from None


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some columns of the table, (N,) int64 or bool, quickly: for boards of a thousand models.

    Raises:
        RecordError: missing or damaged, or a column that is not there, of another type, or with gaps.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(names) - set(file.schema_arrow.names))
            if missing:
                raise RecordError(f"{path}: no column '{missing[0]}'")
            table = file.read(columns=list(names), use_threads=False)
        return {name: _numbers(path, name, table[name].combine_chunks()) for name in names}
    except (OSError, pa.ArrowException) as problem:
        raise RecordError(f"{path}: not readable as outcomes ({problem})") from None


def _numbers(path: Path, name: str, array: "pa.Array") -> np.ndarray:
    """Straight from the buffer: ``to_numpy`` would import pandas, which takes longer than all the rest."""
    kind = str(array.type)
    if kind not in ("int64", "bool") or array.null_count:
        raise RecordError(f"{path}: column '{name}' is {kind}, or has gaps; expected int64 or bool")
    if len(array) == 0:
        return np.zeros(0, kind)
    start, stop, buffer = array.offset, array.offset + len(array), array.buffers()[1]
    if kind == "int64":
        return np.frombuffer(buffer, np.int64, count=stop)[start:]
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=stop, bitorder="little")
    return np.asarray(bits[start:], bool)
