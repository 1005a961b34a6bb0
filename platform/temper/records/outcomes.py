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
from temper.safe_load import read_regular

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_BYTES = 2**30
"""Of the file, and of what is packed in it."""
MAX_VALUES = 100_000_000
"""In all columns; a million images have about thirty million."""


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

    try:
        with _opened(path) as file:  # read_table imports pandas
            return file.read()
    except (OSError, ValueError, pa.ArrowException) as problem:
        raise RecordError(f"{path}: not readable as outcomes ({problem})") from None


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some columns of the table, (N,) int64 or bool, quickly: for boards of a thousand models.

    Raises:
        RecordError: missing or damaged, or a column that is not there, of another type, or with gaps.
    """
    import pyarrow as pa

    try:
        with _opened(path) as file:
            missing = sorted(set(names) - set(file.schema_arrow.names))
            if missing:
                raise RecordError(f"{path}: no column '{missing[0]}'")
            table = file.read(columns=list(names), use_threads=False)
        return {name: _numbers(path, name, table[name].combine_chunks()) for name in names}
    except (OSError, ValueError, pa.ArrowException) as problem:
        raise RecordError(f"{path}: not readable as outcomes ({problem})") from None


def _opened(path: Path) -> "pq.ParquetFile":
    """The file, looked at before anything in it is unpacked: a few bytes of Parquet can stand for gigabytes.

    Raises:
        OSError, ArrowException: it cannot be read.
        ValueError: no regular file, or more than outcomes can be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(read_regular(path, MAX_BYTES)))
    about = file.metadata
    groups = [about.row_group(index) for index in range(about.num_row_groups)]
    values = sum(group.column(index).num_values for group in groups for index in range(about.num_columns))
    unpacked = sum(group.total_byte_size for group in groups)
    if max(values, about.num_rows) > MAX_VALUES or unpacked > MAX_BYTES:
        raise ValueError(
            f"{values:,} values, {unpacked:,} bytes unpacked; allowed: {MAX_VALUES:,} and {MAX_BYTES:,}"
        )
    return file


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
