"""Reading and writing ``outcomes.parquet``: what happened to every test image.

PyArrow is imported late: commands that read only ``record.json`` start without it.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

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
