"""Published results in a board folder: ``external.json`` in a folder for each, all of them or none."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from temper.errors import RecordError, UsageError
from temper.leaderboard.external import slug_of_external
from temper.leaderboard.robustbench import NORMS, is_of_corruptions, model_info_files, read_model_info
from temper.records import EXTERNAL, ExternalRecord, read_external, write_atomic
from temper.storage import is_remote

MAX_FILES = 5000
MAX_SHOWN = 20


@dataclass
class Imported:
    """What came of the files that were named."""

    added: list[str] = field(default_factory=list)
    """Folders within the board, as in the other two."""
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Lines about files, and about keys of files, that are not taken over."""


def import_entries(
    paths: Sequence[Path],
    board: Path,
    *,
    data_name: str | None = None,
    norm: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Write RobustBench's ``model_info`` files, or all in a folder, into ``board`` as external records.

    The same again changes nothing. ``overwrite`` replaces records of the same name that say something else.

    Raises:
        UsageError: no such file or folder, a folder without any, a board that is a file, or no such norm.
        RecordError: any file that is wrong; nothing is written.
    """
    if board.exists() and not board.is_dir():
        raise UsageError(f"{board}: is a file; a board is a folder")
    if norm not in (None, *NORMS):
        raise UsageError(f"--norm: '{norm}' is none of {', '.join(NORMS)}")
    imported = Imported()
    found = _read(_without_corruptions(_files(paths), imported), data_name, norm, imported)
    _sort_out(found, board, overwrite, imported)
    _write(found, board, imported)
    return imported


def _files(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if is_remote(path) or not path.exists():
            raise UsageError(f"{path}: no such file or folder on this machine")
    files = list(dict.fromkeys(file for path in paths for file in model_info_files(path)))
    if not files:
        raise UsageError(f"{', '.join(map(str, paths))}: no .json file in there")
    if len(files) > MAX_FILES:
        raise UsageError(f"{len(files):,} .json files; allowed: {MAX_FILES:,}")
    return files


def _read(
    files: list[Path], data_name: str | None, norm: str | None, imported: Imported
) -> dict[str, ExternalRecord]:
    """Folder of the board -> record."""
    found: dict[str, ExternalRecord] = {}
    origin: dict[str, Path] = {}
    datasets, problems = set(), []
    for file in files:
        try:
            record, ignored = read_model_info(file, data_name, norm)
        except RecordError as problem:
            problems.append(str(problem))
            continue
        if ignored:
            imported.left_out.append(f"{file}: {', '.join(ascii(key)[:40] for key in ignored[:5])}")
        slug = slug_of_external(record)
        if slug in found and found[slug] != record:
            problems.append(f"{file}: another '{record.name}' than {origin[slug]}; keep one of them")
        found[slug], origin[slug] = record, file
        datasets.add(record.dataset)
    if data_name is not None and len(datasets) > 1:
        listed = ", ".join(sorted(datasets))
        raise UsageError(f"--data names one data set, the files are of {listed}; import one at a time")
    _refuse(problems, f"{len(files)} files")
    return found


def _without_corruptions(files: list[Path], imported: Imported) -> list[Path]:
    """Those with a norm; what is about common corruptions is told, a line for each folder."""
    others: dict[Path, int] = {}
    for file in files:
        if is_of_corruptions(file):
            others[file.parent] = others.get(file.parent, 0) + 1
    reason = "about common corruptions, which have no norm and no eps"
    imported.left_out += [f"{folder}: {number} {reason}" for folder, number in others.items()]
    kept = [file for file in files if file.parent not in others]
    if not kept:
        raise RecordError(f"nothing to import: all {len(files)} files are {reason}")
    return kept


def _sort_out(found: dict[str, ExternalRecord], board: Path, overwrite: bool, imported: Imported) -> None:
    problems = []
    for slug, record in found.items():
        path = board / slug / EXTERNAL
        if not path.parent.exists():
            imported.added.append(slug)
            continue
        try:
            old = read_external(path)
        except RecordError as problem:
            differs = str(problem)
        else:
            fields = [
                name for name in type(record).model_fields if getattr(old, name) != getattr(record, name)
            ]
            differs = f"{path}: differs for '{record.name}' ({', '.join(fields)})" if fields else ""
        if differs and not overwrite:
            problems.append(differs)
        (imported.replaced if differs else imported.unchanged).append(slug)
    _refuse(problems, f"{len(found)} entries", "; --overwrite replaces what is there")


def _refuse(problems: list[str], of: str, hint: str = "") -> None:
    if problems:
        more = [f"and {len(problems) - MAX_SHOWN} more"] if len(problems) > MAX_SHOWN else []
        end = f"{len(problems)} of {of} refused, so nothing was written{hint}"
        raise RecordError("\n".join([*problems[:MAX_SHOWN], *more, end]))


def _write(found: dict[str, ExternalRecord], board: Path, imported: Imported) -> None:
    """All files first, under a hidden name: a full disk leaves the board as it was."""
    board.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=board, prefix=".") as temporary:
        made = Path(temporary)
        for slug in (*imported.added, *imported.replaced):
            write_atomic(made / slug / EXTERNAL, found[slug].model_dump_json(indent=2) + "\n")
        for slug in imported.added:
            (made / slug).rename(board / slug)
        for slug in imported.replaced:
            (made / slug / EXTERNAL).replace(board / slug / EXTERNAL)
