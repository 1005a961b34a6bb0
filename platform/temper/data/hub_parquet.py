"""Parquet files as the Hugging Face hub has them: unpacked into files and a table of their labels."""

import csv
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from temper.data.archives import Entry, Unpacking
from temper.data.layout import LABEL, SPLIT
from temper.data.manifest import BadImage
from temper.data.metadata import KEY
from temper.data.walk import NOTE_SUFFIXES, files_of_kind
from temper.errors import DataError

logger = logging.getLogger(__name__)

SUFFIX = ".parquet"
MAX_GROUP_BYTES = 2**31
"""Of one row group, unpacked: a few bytes of Parquet can stand for gigabytes."""
MAX_ROWS = 100_000_000
BATCH = 16
"""Rows in memory at once."""
PLAIN = re.compile(r"[\w.-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    image: str
    label: str
    names: tuple[str, ...] | None
    """Of a ClassLabel; ``None``: the column itself says the class."""
    others: tuple[str, ...]
    """Attributes, and perhaps the split."""

    def __str__(self) -> str:
        return ", ".join([self.image, self.label, *self.others])


def hub_files(path: Path) -> list[Path]:
    """A Parquet file, or those of a folder that holds no other files; sorted, empty where it is no such one.

    Raises:
        DataError: they are shards already.
    """
    if not path.is_dir():
        return [path] if path.suffix.lower() == SUFFIX and path.exists() else []
    found = files_of_kind(path, lambda file: file.suffix.lower() == SUFFIX)
    for folder in sorted({file.parent for file in found}):
        if (folder / "manifest.json").exists():
            raise DataError(f"{folder}: these are shards already; give the images they were made from")
    return found


def unpack_parquet(files: Sequence[tuple[Path, str]], folder: Path, table_file: Path) -> list[BadImage]:
    """Write the images of ``files``, each with its split or "", and a table of them; returns those refused.

    Raises:
        DataError: no Parquet of images and labels, files that differ, one without a split beside others with
            one, or more than memory or the disk holds.
    """
    refused: list[BadImage] = []
    num_images = 0
    first, columns = files[0][0], _columns(files[0][0], _opened(files[0][0]))
    has_split = any(split for _, split in files)
    if has_split and SPLIT in columns.others:
        raise DataError(f"{first}: its name and its column '{SPLIT}' both name a split; rename one of them")
    with table_file.open("x", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened)
        table.writerow([KEY, LABEL, *([SPLIT] if has_split else []), *columns.others])
        for number, (path, split) in enumerate(files):
            if has_split and not split:
                raise DataError(f"{path}: its name has no split, but other names do; rename it")
            parquet = _opened(path)
            if (found := _columns(path, parquet)) != columns:
                raise DataError(f"{path}: its columns or classes are not those of {first} ({columns})")
            unpacking = Unpacking(path, folder)
            for row, values in enumerate(_rows(path, parquet, found)):
                label = _label(path, row, values[columns.label], columns.names)
                image = values[columns.image] or {}
                name, content = _name(number, row, image.get("path")), image.get("bytes")
                if content is None:
                    refused.append(BadImage(path=name, reason=f"no bytes in row {row} of {path.name}"))
                    continue
                unpacking.write(Entry(name, len(content), BytesIO(content)), name)
                num_images += 1
                cells = [_text(values[one]) for one in columns.others]
                table.writerow([name, label, *([split] if has_split else []), *cells])
    if refused and not num_images:
        raise DataError(f"{first}: no image has its bytes, and paths are not opened; save the images within")
    return refused


def _opened(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise DataError(f"{path}: not a regular file")
    try:
        parquet = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as problem:
        raise DataError(f"{path}: not a readable Parquet file ({_line(problem)})") from None
    about = parquet.metadata
    largest = max((about.row_group(i).total_byte_size for i in range(about.num_row_groups)), default=0)
    if largest > MAX_GROUP_BYTES or about.num_rows > MAX_ROWS:
        raise DataError(
            f"{path}: {about.num_rows:,} rows, {largest:,} bytes unpacked in one row group; allowed: "
            f"{MAX_ROWS:,} and {MAX_GROUP_BYTES:,}; write it with smaller row groups"
        )
    return parquet


def _columns(path: Path, parquet: pq.ParquetFile) -> Columns:
    schema = parquet.schema_arrow
    images = [field.name for field in schema if _is_image(field.type)]
    found = f"found {', '.join(f'{field.name} ({field.type})' for field in schema)[:300] or 'none'}"
    if len(images) != 1:
        count = f"{len(images)} columns of images ({', '.join(images)})" if images else "no column of images"
        raise DataError(f"{path}: {count}; expected one of {{bytes, path}}: {found}")
    if len(set(schema.names)) < len(schema.names) or KEY in schema.names:
        raise DataError(f"{path}: two columns of one name, or one called '{KEY}'; rename it: {found}")
    features = _features(schema.metadata)
    labelled = [name for name in schema.names if "names" in features.get(name, {})]
    label = LABEL if LABEL in schema.names else labelled[0] if len(labelled) == 1 else None
    kind = None if label is None else schema.field(label).type
    if label is None or not (_is_text(kind) or pa.types.is_integer(kind)):
        raise DataError(f"{path}: no column '{LABEL}' of integers or text, nor a single ClassLabel; {found}")
    names = features.get(label, {}).get("names")
    if names is not None and not (isinstance(names, list) and all(isinstance(one, str) for one in names)):
        raise DataError(f"{path}: the classes of '{label}' are not a list of names")
    others = [field for field in schema if field.name not in (images[0], label)]
    unused = [f"{field.name} ({field.type})" for field in others if not _is_scalar(field.type)]
    if unused:
        logger.warning("%s: columns ignored, because they hold no plain values: %s", path, ", ".join(unused))
    return Columns(
        images[0],
        label,
        tuple(names) if names is not None and pa.types.is_integer(kind) else None,
        tuple(field.name for field in others if _is_scalar(field.type)),
    )


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What the hub's library noted of each column; nothing where that is not understood."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: about for name, about in found.items() if isinstance(about, dict)}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}


def _is_image(column: pa.DataType) -> bool:
    fields = {field.name: field.type for field in column} if pa.types.is_struct(column) else {}
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null)  # null: paths alone
    return "bytes" in fields and any(is_kind(fields["bytes"]) for is_kind in kinds)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_scalar(kind: pa.DataType) -> bool:
    plain = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal, pa.types.is_null
    )  # fmt: skip
    return _is_text(kind) or any(is_kind(kind) for is_kind in plain)


def _rows(path: Path, parquet: pq.ParquetFile, columns: Columns) -> Iterator[dict[str, Any]]:
    wanted = [columns.image, columns.label, *columns.others]
    try:
        for batch in parquet.iter_batches(BATCH, columns=wanted, use_threads=False):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: damaged ({_line(problem)})") from None


def _label(path: Path, row: int, value: int | str | None, names: tuple[str, ...] | None) -> str:
    if value is None or value == "":
        raise DataError(f"{path}: row {row} has no label; remove it")
    if names is None and not (isinstance(value, int) and value < 0):
        return str(value)
    if names is None or not (isinstance(value, int) and 0 <= value < len(names)):
        allowed = "0 and above" if names is None else f"0..{len(names) - 1}"
        raise DataError(f"{path}: row {row} has the label {value}; allowed: {allowed}")
    return names[value]


def _name(number: int, row: int, path: str | None) -> str:
    """Of the file of a row: with that of the original, where it is a plain one."""
    original = (path or "").rpartition("/")[2]
    is_plain = PLAIN.fullmatch(original) and Path(original).suffix.lower() not in NOTE_SUFFIXES
    return f"{number:04d}-{row:07d}" + (f"-{original}" if is_plain else "")


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:200]
