"""What lies in a source folder: class folders, tables beside them, and groups that file names tell."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from temper.data.dicom import patient_of
from temper.data.doubts import doubts_of
from temper.data.folders import (
    KNOWN,
    SPLIT_FOLDERS,
    ImageFile,
    Scan,
    left_out,
    scan_folders,
    split_in,
)
from temper.data.groups import GROUP
from temper.data.manifest import Split
from temper.data.metadata import Table, key, read_tables
from temper.data.reading import printable
from temper.data.walk import IMAGE_SUFFIXES, below, check_names, is_note, nfc, walk
from temper.errors import DataError
from temper.formats import one_line

LABEL, SPLIT = "label", "split"


def scan_source(
    source: Path, labels: Path | None = None, group: str | None = None, *, follow_links: bool = False
) -> Scan:
    """Every file of ``source`` with its class, its split and what tables say of it.

    Classes are those of a table's column ``label``, else those of the folders. ``labels``: a table elsewhere,
    in place of ``metadata.csv``. ``group``: a regular expression that finds each file's group in its name.

    Raises:
        DataError: no such folder, no classes, a table that does not fit the files, or names without a group.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    table = read_tables(source, labels)
    if table is not None and table.has(LABEL):
        scan = _scan_labelled(source, table, follow_links)
    else:
        try:
            scan = scan_folders(source, follow_links=follow_links)
        except DataError as problem:
            if table is None:
                raise
            found = ", ".join(table.columns) or "none"
            raise DataError(f"{problem}; {table.place} has no column '{LABEL}', but {found}") from None
        if table is not None:
            _check_paths(source, table, [file.relative for file in scan.files])
    if table is not None:
        _check_rows(source, table, scan)
        scan = _with_table(scan, table)
    if group is not None:
        scan = _with_groups(scan, group)
    return scan._replace(doubts=doubts_of(source, scan, table, labels))


def _scan_labelled(source: Path, table: Table, follow: bool) -> Scan:
    """Files at any depth, in the classes that ``table`` names; splits are those of the topmost folders."""
    label_of = table.column(LABEL)
    classes = sorted({label for _, label in label_of.values()})
    check_names(Path(table.place), classes)
    if len(classes) < 2:
        raise DataError(f"{table.place}: expected at least two labels, found {', '.join(classes) or 'none'}")
    number = {name: label for label, name in enumerate(classes)}
    paths = [path for path in sorted(walk(source, follow)) if not is_note(below(path, source))]
    names = [below(path, source) for path in paths]
    _check_paths(source, table, names)
    splits = _splits_of(source, names)
    if not splits and not table.has(SPLIT):
        _refuse_other_splits(source, names, set(classes))
    files = []
    for path, name in zip(paths, names, strict=True):
        if (row := label_of.get(key(name))) is None:
            raise DataError(_without_row(source, table, names))
        place, label = row
        others = [part for part in Path(name).parts[:-1] if part in number and part != label]
        if others and label not in Path(name).parts[:-1]:
            raise DataError(f"{place}: {name} lies in the folder '{others[-1]}', but its label is '{label}'")
        files.append(ImageFile(path, name, number[label], splits.get(name, "train")))
    return Scan(classes, files, *left_out(source, files, [], [], follow))


def _splits_of(source: Path, names: list[str]) -> Mapping[str, Split]:
    """File -> the split of its topmost folder; none where no folder is called like a split."""
    tops = {name: name.partition("/")[0].lower() for name in names if "/" in name}
    found = {name: SPLIT_FOLDERS[top] for name, top in tops.items() if top in SPLIT_FOLDERS}
    outside = next((name for name in names if name not in found), None)
    if found and outside is not None:
        raise DataError(
            f"{source}: {next(iter(found))} lies in a folder that names a split, {outside} in none; splits "
            f"are called {KNOWN}: move one of them, or rename the folder"
        )
    return found


def _refuse_other_splits(source: Path, names: list[str], classes: set[str]) -> None:
    """Refuse ``images/train`` and ``images/test``, or ``train_images`` and ``test_images``."""
    parts = {part for name in names for part in Path(name).parts[:-1]} - classes
    alike = sorted(part for part in parts if split_in(part))
    if len({split_in(part) for part in alike}) > 1:
        listed = ", ".join(f"'{part}'" for part in alike[:5])
        raise DataError(
            f"{source}: the folders {listed} look like splits, but would be ignored; splits are the topmost "
            f"folders called {KNOWN}: rename or move these, or give the table a column 'split'"
        )


def _check_rows(source: Path, table: Table, scan: Scan) -> None:
    """Refuse rows without a file, and files without a row."""
    known = {key(file.relative) for file in scan.files}
    for file, row in table.rows.items():
        if file not in known:
            why = "is not an image of a class" if (source / file).is_file() else f"is not in {source}"
            count = len(table.rows.keys() - known)
            more = f" (so do {count - 1} more rows)" if count > 1 else ""
            raise DataError(f"{row.place}: names {file}, which {why}{more}; remove the row, or add the file")
    if known - table.rows.keys():
        raise DataError(_without_row(source, table, [file.relative for file in scan.files]))


def _check_paths(source: Path, table: Table, names: list[str]) -> None:
    """Refuse a table whose paths all begin in a folder above or below ``source``."""
    known, first = {key(name) for name in names}, next(iter(table.rows), "")
    others = [name for name in known if name.endswith(f"/{first}") or first.endswith(f"/{name}")]
    if others and known.isdisjoint(table.rows):
        raise DataError(
            f"{table.place}: no row names a file of {source}; paths begin in the folder of the images: write "
            f"{min(others)!r} for {first!r}, and the others likewise"
        )


def _without_row(source: Path, table: Table, names: list[str]) -> str:
    missing = [name for name in names if key(name) not in table.rows]
    more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
    known = {key(name) for name in names}
    unused = [
        f" ({row.place} names {file!r}, not there)" for file, row in table.rows.items() if file not in known
    ]
    todo = "add rows, or move away what is no image"
    return f"{source}: {missing[0]}{more} without a row in {table.place}{''.join(unused[:1])}; {todo}"


def _with_table(scan: Scan, table: Table) -> Scan:
    """The same files with the table's splits and attributes."""
    names = tuple(name for name in table.columns if name not in (LABEL, SPLIT))
    files = []
    has_folders = any(file.split != "train" for file in scan.files)
    if not table.has(SPLIT) and not has_folders:
        _refuse_unused_splits(table, names)
    for file in scan.files:
        row = table.rows[key(file.relative)]
        values = tuple(row.values[name] for name in names)
        split = file.split
        if table.has(SPLIT):
            word = row.values[SPLIT] or ""
            if word.lower() not in SPLIT_FOLDERS:
                raise DataError(f"{row.place}: the split is {word!r}; splits are called {KNOWN}")
            split = SPLIT_FOLDERS[word.lower()]
            if has_folders and split != file.split:
                raise DataError(
                    f"{row.place}: {file.relative} is in '{split}', but its folder is '{file.split}'"
                )
        files.append(replace(file, values=values, split=split))
    if not any(file.split == "train" for file in files):
        raise DataError(f"{table.place}: no image is in the split 'train'")
    return scan._replace(files=files, attributes=names)


def _refuse_unused_splits(table: Table, columns: Sequence[str]) -> None:
    """Refuse an attribute that names splits and is not called so: other ones would be drawn."""
    for name in columns:
        words = {(row.values[name] or "").lower() for row in table.rows.values()}
        if len({SPLIT_FOLDERS.get(word) for word in words}) > 1 and words <= SPLIT_FOLDERS.keys():
            raise DataError(
                f"{table.place}: the column '{one_line(name)}' names splits ({', '.join(sorted(words))}), "
                f"but would be ignored; call it '{SPLIT}', or remove it to have splits drawn"
            )


def _with_groups(scan: Scan, pattern: str) -> Scan:
    """The same files, each with the group that ``pattern`` finds in its name; with a slash, in its path."""
    if GROUP in scan.attributes:
        raise DataError("--group: the table has a column 'group' already; remove one of them")
    try:
        regex = re.compile(pattern)
    except re.error as problem:
        raise DataError(f"--group {pattern!r}: not a regular expression ({problem})") from None
    if not regex.groups:
        raise DataError(f"--group {pattern!r}: expected a part in parentheses, such as '^(patient\\d+)_'")
    part: int | str = GROUP if GROUP in regex.groupindex else 1
    files, without = [], []
    for file in scan.files:
        match = regex.search(file.relative if "/" in pattern else nfc(file.path.name))
        if match is None or not match[part]:
            without.append(file.relative)
        else:
            files.append(replace(file, values=(*file.values, match[part])))
    if without:
        raise DataError(
            f"--group {pattern!r}: finds no group in {len(without)} of {len(scan.files)} names, such as "
            f"{without[0]}"
        )
    return scan._replace(files=files, attributes=(*scan.attributes, GROUP))


def with_patients(scan: Scan, root: Path | None) -> Scan:
    """The same files, with the patients of DICOM files as groups, where no other groups are given.

    Files that lead out of ``root``, resolved, are not opened; ``None``: all are.
    """
    if GROUP in scan.attributes:
        return scan
    patients = [_patient(file, root) for file in scan.files]
    if not any(patients):
        return scan
    files = [
        replace(file, values=(*file.values, patient or None))
        for file, patient in zip(scan.files, patients, strict=True)
    ]
    return scan._replace(files=files, attributes=(*scan.attributes, GROUP))


def _patient(file: ImageFile, root: Path | None) -> str:
    if file.path.suffix.lower() in IMAGE_SUFFIXES or not file.path.is_file():
        return ""
    if root is not None and not file.path.resolve().is_relative_to(root):
        return ""
    return printable(patient_of(file.path))
