"""What rose and fell since an older ``leaderboard.json``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from temper.errors import RecordError, UsageError
from temper.leaderboard.boards import Board
from temper.leaderboard.entries import Entry
from temper.safe_load import read_json
from temper.spec import Spec, Threat, first_problem

ORDER = ("rose", "fell", "new", "gone")


class Change(Spec):
    """One model that is not where it was."""

    kind: Literal["rose", "fell", "new", "gone"]
    """By rank; where that is the same, by robust accuracy."""
    board: str
    name: str
    seed: int
    slug: str | None
    """Of its card now."""
    old_rank: int | None
    new_rank: int | None
    old_robust_acc: float | None
    new_robust_acc: float | None
    note: str
    """What else changed; empty where nothing did."""


class Changes(Spec):
    """Everything that changed, and how much did not."""

    since: str
    """The older leaderboard's date."""
    changes: list[Change]
    num_same: int


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class OldEntry(_Lenient):
    """What is needed of an entry, in any version of the file."""

    name: str
    seed: int = 0
    rank: int | None = None
    robust_acc: float
    recipe_hash: str = ""
    status: str = "ok"
    created: str = ""


class OldBoard(_Lenient):
    data_name: str
    fingerprint: str
    num_images: int
    image_size: int | None = None
    threat: Threat
    suite: str
    suite_version: int
    suite_hash: str = ""
    entries: list[OldEntry]
    blocked: list[OldEntry] = Field(default_factory=list)
    unverified: list[OldEntry] = Field(default_factory=list)


class OldLeaderboard(_Lenient):
    as_of: str
    boards: list[OldBoard]


def read_old(path: Path) -> OldLeaderboard:
    """Read an older ``leaderboard.json``, of schema version 1 or 2.

    Raises:
        UsageError: no such file.
        RecordError: not a leaderboard, or one of a version that is not known.
    """
    try:
        document = read_json(path)
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version not in (1, 2):
            raise RecordError(
                f"{path}: schema version {version!r} of a leaderboard, this temper reads 1 and 2"
            )
        return OldLeaderboard.model_validate(document)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; --compare takes an older leaderboard.json") from None
    except ValidationError as problem:
        raise RecordError(f"{path}: {first_problem(problem)}") from None
    except (OSError, ValueError) as problem:
        raise RecordError(f"{path}: not readable as a leaderboard ({problem})") from None


def compare_boards(old: OldLeaderboard, boards: Sequence[Board]) -> Changes:
    """What changed: models are known by board, name and seed."""
    knows_size = all(board.image_size is not None for board in old.boards)  # version 1 does not
    before = {_key(board, knows_size): board for board in old.boards}
    after = {_key(board, knows_size): board for board in boards}
    changes: list[Change] = []
    num_same = 0
    for key in {**after, **before}:
        found = list(_changes_of(before.get(key), after.get(key)))
        changes += [change for change in found if change is not None]
        num_same += found.count(None)
    changes.sort(key=lambda change: (ORDER.index(change.kind), change.new_rank or 10**9, change.name))
    return Changes(since=old.as_of, changes=changes, num_same=num_same)


def board_title(board: Board | OldBoard) -> str:
    return f"{board.data_name}, {board.threat.label}, {board.suite} {board.suite_version}"


def _key(board: Board | OldBoard, knows_size: bool) -> tuple[Any, ...]:
    threat, size = board.threat, board.image_size if knows_size else None
    suite = (board.suite, board.suite_version, board.suite_hash)
    within = (threat.norm, threat.eps, threat.channels)
    return board.data_name, board.fingerprint, board.num_images, size, *within, *suite


def _changes_of(before: OldBoard | None, after: Board | None) -> Iterator[Change | None]:
    board = after or before
    assert board is not None
    title = board_title(board)
    old, new = _by_identity(before), _by_identity(after)
    note = "" if before and after else "new board" if after else "the board is gone"
    for key in {**new, **old}:
        yield _change(title, old.get(key), new.get(key), note)


def _by_identity(board: Board | OldBoard | None) -> dict[tuple[str, int, int], Any]:
    """(name, seed, how many of the same came before it) -> entry."""
    entries: dict[tuple[str, int, int], Any] = {}
    if board is None:
        return entries
    for entry in sorted(
        [*board.entries, *board.blocked, *board.unverified],
        key=lambda entry: (entry.created, entry.recipe_hash),
    ):
        number = 0
        while (entry.name, entry.seed, number) in entries:
            number += 1
        entries[entry.name, entry.seed, number] = entry
    return entries


def _change(title: str, old: OldEntry | None, new: Entry | None, note: str) -> Change | None:
    one = new or old
    assert one is not None
    kind = _kind(old, new)
    if kind is None:
        return None
    return Change(
        kind=kind,
        board=title,
        name=one.name,
        seed=one.seed,
        slug=new.slug if new else None,
        old_rank=old.rank if old else None,
        new_rank=new.rank if new else None,
        old_robust_acc=old.robust_acc if old else None,
        new_robust_acc=new.robust_acc if new else None,
        note=note or _note(old, new),
    )


def _kind(old: OldEntry | None, new: Entry | None) -> Literal["rose", "fell", "new", "gone"] | None:
    if old is None:
        return "new"
    if new is None:
        return "gone"
    if old.rank != new.rank:
        return "rose" if (new.rank or 10**9) < (old.rank or 10**9) else "fell"
    if abs(old.robust_acc - new.robust_acc) > 1e-9:
        return "rose" if new.robust_acc > old.robust_acc else "fell"
    return None


def _note(old: OldEntry | None, new: Entry | None) -> str:
    if old is None or new is None:
        return f"{new.status}: {'; '.join(new.reasons)}" if new and new.rank is None else ""
    parts = []
    if (old.rank is None) != (new.rank is None):
        parts.append("ranked now" if new.rank else f"{new.status}: {'; '.join(new.reasons)}")
    if old.recipe_hash != new.recipe_hash:
        parts.append("different recipe")
    if abs(old.robust_acc - new.robust_acc) <= 1e-9 and not parts:
        parts.append("same numbers; other models changed")
    return "; ".join(parts)
