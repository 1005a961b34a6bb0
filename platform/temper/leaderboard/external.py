"""What others published, in tables of its own: no rank, no test and no front knows of it."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from temper.errors import RecordError
from temper.leaderboard.collect import FoundExternal, slug_of
from temper.leaderboard.entries import Entry
from temper.records import EXTERNAL, ExternalRecord, read_external
from temper.spec import Spec, Threat

NOT_MEASURED = "not measured here"


class ExternalEntry(Spec):
    """One published result; accuracies are fractions 0..1, ``None`` where nothing was published."""

    slug: str
    name: str
    clean_acc: float
    robust_acc: float | None
    """The lowest that others than the authors found."""
    evaluated_with: str
    autoattack_acc: float | None
    external_acc: float | None
    reported_acc: float | None
    is_unreliable: bool | None
    publisher: str
    dataset: str
    """The data set, as the publisher calls it."""
    title: str
    authors: str
    link: str | None
    venue: str
    architecture: str
    extra_data: bool | None
    num_forward_passes: int | None
    footnote: str
    path: str
    """The record's file."""

    @property
    def found_by(self) -> str:
        """What found the robust accuracy, with a doubt that is published of it."""
        return f"{self.evaluated_with}{', flagged as unreliable' if self.is_unreliable else ''}"


class ExternalTable(Spec):
    """What was published of a data set and a threat model; on which images, and how, is not known here."""

    data_name: str
    threat: Threat
    entries: list[ExternalEntry]
    """By robust accuracy, then name; those without one last."""

    @property
    def publishers(self) -> str:
        return " and ".join(sorted({entry.publisher for entry in self.entries}))


def external_tables(found: Iterable[FoundExternal]) -> list[ExternalTable]:
    """One table for each data set and threat model."""
    groups: dict[tuple[str, str, str], list[FoundExternal]] = {}
    for one in found:
        groups.setdefault(_key(one.record.data_name, one.record.threat), []).append(one)
    return [_table(groups[key]) for key in sorted(groups)]


def table_beside(data_name: str, threat: Threat, tables: Sequence[ExternalTable]) -> ExternalTable | None:
    """What was published of a board's data set, known by its name alone, within its very threat model."""
    key = _key(data_name, threat)
    return next((table for table in tables if _key(table.data_name, table.threat) == key), None)


def rows_of(entries: Sequence[Entry], table: ExternalTable | None) -> list[Entry | ExternalEntry]:
    """Ranked models in their order, and between them, by robust accuracy, what was published."""
    rows: list[Entry | ExternalEntry] = [*entries, *(table.entries if table else [])]
    return sorted(rows, key=lambda entry: 1.0 if entry.robust_acc is None else -entry.robust_acc)


def slug_of_external(record: ExternalRecord) -> str:
    """Its folder on a board: whatever it says, the same for the same model, data set and threat model."""
    key = "\0".join((*_key(record.data_name, record.threat), record.name))
    words = f"{record.data_name} {record.threat.norm} {record.name}"
    return f"external-{slug_of(words, hashlib.sha256(key.encode()).hexdigest())}"


def external_problems(folder: Path) -> list[str]:
    """What is wrong with the external record of a board's folder, as far as that can be seen."""
    try:
        expected = slug_of_external(read_external(folder / EXTERNAL))
    except RecordError as problem:
        return [str(problem)]
    return [] if folder.name == expected else [f"the folder should be named {expected}"]


def _key(data_name: str, threat: Threat) -> tuple[str, str, str]:
    """``CIFAR-10`` is ``cifar10``; 0.031 is not 8/255."""
    plain = "".join(char for char in data_name.casefold() if char.isalnum()) or data_name
    return plain, threat.norm, repr(threat.eps) + " grey" * threat.is_grey


def _table(found: list[FoundExternal]) -> ExternalTable:
    entries = [_entry(one) for one in found]
    first = found[0].record
    return ExternalTable(data_name=first.data_name, threat=first.threat, entries=sorted(entries, key=_order))


def _order(entry: ExternalEntry) -> tuple[Any, ...]:
    return entry.robust_acc is None, -(entry.robust_acc or 0.0), -entry.clean_acc, entry.name


def _entry(found: FoundExternal) -> ExternalEntry:
    record = found.record
    same = set(ExternalEntry.model_fields) & set(ExternalRecord.model_fields)
    return ExternalEntry(
        slug=slug_of_external(record),
        robust_acc=record.robust_acc,
        evaluated_with=record.evaluated_with,
        path=str(found.path),
        **{name: getattr(record, name) for name in same},
    )
