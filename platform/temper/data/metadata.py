"""Tables beside images: ``metadata.csv``, as Hugging Face's imagefolder has it, or a table of labels.

A row names a file and what is known of it: its ``label``, its ``group`` (patient, part, speaker: images that
belong in one split), its ``site``, its ``split``, and further attributes.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from temper.data.walk import nfc
from temper.errors import DataError

FILE_NAME = "metadata.csv"
OTHER_FILES = ("metadata.jsonl", "metadata.parquet")
"""Of the same layout, which are not read."""
KEY = "file_name"
MEANINGFUL = (KEY, "label", "group", "site", "split")
"""Columns that are known by these names, in small or capital letters."""
TAKEN = ("image",)
"""Columns that shards have for themselves."""


@dataclass(frozen=True)
class Row:
    """What a table says of a file."""

    place: str
    """The table and the line, for errors."""
    values: dict[str, str | None]
    """Column -> text; ``None`` where the cell is empty."""


@dataclass(frozen=True)
class Table:
    """All tables of a source folder as one."""

    place: str
    """Where it was read, for errors."""
    columns: tuple[str, ...]
    """Without the names of the files; in the order of the first table."""
    rows: dict[str, Row]
    """By ``key`` of the file's path, relative to the source folder."""

    def has(self, column: str) -> bool:
        return column in self.columns

    def column(self, name: str) -> dict[str, tuple[str, str]]:
        """File -> the row's place and its value in a column that every row must fill.

        Raises:
            DataError: a cell is empty.
        """
        found = {}
        for file, row in self.rows.items():
            value = row.values[name]
            if value is None:
                raise DataError(
                    f"{row.place}: '{name}' is empty; fill it in, or remove the row with its file"
                )
            found[file] = row.place, value
        return found


def key(relative: str) -> str:
    """A path as tables and folders agree on it: composed letters, no ``./``, and Windows' slashes turned."""
    return nfc(PurePosixPath(relative.replace("\\", "/")).as_posix())


def read_tables(source: Path, labels: Path | None) -> Table | None:
    """The table ``labels``, or every ``metadata.csv`` in ``source``; ``None`` where there is none.

    Paths in ``labels`` are relative to ``source``, those in a ``metadata.csv`` to its folder.

    Raises:
        DataError: no table, two kinds of them, columns that differ, or a file with two rows.
    """
    found = sorted(_tables_in(source))
    if labels is not None:
        others = [path for path in found if not (labels.exists() and path.samefile(labels))]
        if others:
            raise DataError(
                f"{others[0]}: would be ignored, because --labels names {labels}; keep one of them"
            )
        found = [labels]
    if not found:
        return None
    if other := next((path for path in found if path.name.lower() in OTHER_FILES), None):
        raise DataError(f"{other}: would be ignored; write this table as {FILE_NAME}, or move it away")
    columns: tuple[str, ...] | None = None
    rows: dict[str, Row] = {}
    for path in found:
        base = PurePosixPath() if labels is not None else PurePosixPath(path.parent.relative_to(source))
        own, content = _read(path)
        if columns is not None and set(own) != set(columns):
            raise DataError(
                f"{path}: its columns ({', '.join(own)}) are not those of {found[0]} ({', '.join(columns)})"
            )
        columns = columns or own
        for name, row in content:
            if (file := key((base / name).as_posix())) in rows:
                raise DataError(f"{row.place}: '{name}' has a row already ({rows[file].place}); keep one")
            rows[file] = row
    return Table(str(found[0]) if len(found) == 1 else f"{FILE_NAME} in {source}", columns or (), rows)


def _tables_in(source: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(source):
        yield from (Path(folder, name) for name in names if name.lower() in (FILE_NAME, *OTHER_FILES))


def _read(path: Path) -> tuple[tuple[str, ...], list[tuple[str, Row]]]:
    """The columns of a table, and each file that it names with its row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [_column(name.strip()) for name in next(reader, [])]
            _check_header(path, header)
            return tuple(name for name in header if name != KEY), list(_rows(path, reader, header))
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the table as CSV in UTF-8") from None
    except csv.Error as problem:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV file ({problem})") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror})") from None


def _column(name: str) -> str:
    return name.lower() if name.lower() in MEANINGFUL else nfc(name)


def _check_header(path: Path, header: Sequence[str]) -> None:
    if KEY not in header:
        is_split = any(char in "".join(header) for char in ";\t")
        hint = "; separate columns by commas" if is_split else "; call the column of paths so"
        raise DataError(f"{path}: expected a column '{KEY}', found {', '.join(header) or 'nothing'}{hint}")
    for name in header:
        if not name or header.count(name) > 1:
            raise DataError(
                f"{path}: {f'two columns are called {name!r}' if name else 'a column has no name'}; rename "
                "or remove it (pandas writes one without index=False)"
            )
        if name in TAKEN or not name.isprintable():
            raise DataError(
                f"{path}: the column {name!a} cannot be kept under this name; rename or remove it"
            )


def _rows(path: Path, reader: Iterator[list[str]], header: Sequence[str]) -> Iterator[tuple[str, Row]]:
    for cells in reader:
        if not any(cells):
            continue
        place = f"{path}, line {reader.line_num}"  # type: ignore[attr-defined]
        if len(cells) != len(header):
            raise DataError(f"{place}: {len(cells)} cells, the header has {len(header)}")
        values = dict(zip(header, cells, strict=True))
        name = values.pop(KEY)
        inside = PurePosixPath(key(name))
        if not name or inside.is_absolute() or ".." in inside.parts:
            raise DataError(f"{place}: '{KEY}' is {name!r}; expected a path within the folder of the images")
        yield name, Row(place, {column: nfc(value.strip()) or None for column, value in values.items()})
