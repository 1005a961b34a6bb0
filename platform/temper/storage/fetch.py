"""Local copies of what is in S3."""

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from temper.addresses import Address, address_of, is_remote, local_path, stage_root
from temper.storage.objects import Object, download, find, list_objects, read_bytes
from temper.storage.scope import MARKER, Marker, Scope, process_lock, read_synced, scan

SMALL = frozenset(
    {
        "record.json", "crossval.json", "sweep.json", "state.json", "entry.json", "verification.json",
        "recipe.yaml", "space.yaml", "points.jsonl", "ledger.jsonl", "metrics.jsonl", "lineage.jsonl",
        "error.txt", "outcomes.parquet", "figure.png", "mistakes.png", "verdict.json",
    }
)  # fmt: skip
"""Files that say how far a run is, and what came of it."""
UNREAD = frozenset({"last", "waiting", "evaluation", "pretrain", "probe", "wandb", "tensorboard"})
"""Folders of a run that only its training or its evaluation reads."""
RUNS_WITHIN = frozenset({"trials", "pretrain", "probe"})
"""Folders of a run or a sweep that hold runs of their own; the processes that train those write them."""
NUM_AT_ONCE = 8
YOUNG_S = 5.0
"""Storage counts in seconds: what was changed shortly before it was fetched may have been changed again."""

WRITTEN_HERE: dict[Path, Scope] = {}
"""Folders that a mirror of this process writes: newer than what lies in the storage."""


def fetched(path: Path, *, names: frozenset[str] | None = None, without: frozenset[str] = UNREAD) -> Path:
    """A local path with what lies at ``path`` now, but for the folders ``without``; only files of ``names``.

    A path of this machine comes back as it is; one where nothing is, as one where nothing is. What a process
    of this machine wrote last is not fetched over.

    Raises:
        StorageError: the storage cannot be reached, or the copy not be written.
    """
    address = address_of(path)
    if address is None:
        return path
    folder = stage_root() / address.place
    if _is_written_here(folder):
        return folder
    objects = list_objects(address)
    if not objects and _fetch_file(address, folder):
        return folder
    scope = Scope(without, names=names)
    for place, members in _by_writer(objects).items():
        start = len(place) + 1 if place else 0
        within = [one for one in objects if not place or one.name.startswith(f"{place}/")]
        inside = [Object(one.name[start:], one.size, one.changed_ns) for one in within]
        with process_lock(folder / place):
            _fetch_group(address / place if place else address, folder / place, members, scope, inside)
    return folder


def fetched_state(path: Path) -> Path:
    """As ``fetched``, but only what says how far the runs at ``path`` are, and what came of them."""
    return fetched(path, names=SMALL, without=RUNS_WITHIN)


def _is_written_here(folder: Path) -> bool:
    return any(
        folder == written
        or (folder.is_relative_to(written) and scope.holds(f"{folder.relative_to(written)}/x"))
        for written, scope in WRITTEN_HERE.items()
    )


def beside(folder: Path, text: str) -> Path:
    """The local path of the file that a record in ``folder`` names by ``text``: of a run, with its state.

    Raises:
        StorageError: it lies in S3, which cannot be reached.
    """
    path = Path(text) if is_remote(text) else folder / text
    if address_of(path) is None:
        return path
    path = Path(os.path.normpath(local_path(path)))
    if path.parent.name == "checkpoint":
        return fetched(path.parents[1]) / "checkpoint" / path.name
    return fetched(path)


def exists(path: Path) -> bool:
    """Whether there is anything at ``path``.

    Raises:
        StorageError: the storage cannot be reached.
    """
    address = address_of(path)
    if address is None:
        return path.exists()
    return find(address) is not None or bool(list_objects(address))


def _fetch_file(address: Address, path: Path) -> bool:
    """Fetch what turns out to be one file; a record with what lies beside it."""
    found = find(address) if address.key else None
    if found is None:
        path.unlink(missing_ok=True) if path.is_file() else None
        return False
    if path.name in SMALL:
        fetched(path.parent)
    elif not _is_same(path, found):
        with process_lock(path):
            download(address, path, found)
    return True


def _by_writer(objects: Iterable[Object]) -> dict[str, list[Object]]:
    """The innermost folder that someone writes by itself -> its files, relative to it; ``""``: the rest."""
    objects = list(objects)
    places = {one.name.rpartition("/")[0] for one in objects if one.name.rpartition("/")[2] == MARKER}
    groups: dict[str, list[Object]] = {"": []}
    for one in objects:
        parts = one.name.split("/")[:-1]
        own = ("/".join(parts[:depth]) for depth in range(len(parts), 0, -1))
        place = next((folder for folder in own if folder in places), "")
        name = one.name[len(place) + 1 :] if place else one.name
        groups.setdefault(place, []).append(Object(name, one.size, one.changed_ns))
    return groups


def _fetch_group(
    address: Address, folder: Path, objects: Sequence[Object], scope: Scope, inside: Sequence[Object]
) -> None:
    """Fetch the ``objects`` of one writer; ``inside``: with those that others write within its folder."""
    marker = Marker.read(folder)
    wanted = [one for one in objects if scope.holds(one.name)]
    if marker is not None and Marker.token_of(read_bytes(address / MARKER)) == marker.token:
        changed = heed_hands(folder, inside)
        wanted = [one for one in wanted if one.name in changed or not marker.scope.holds(one.name)]
        copy_down(address, folder, wanted)
    else:
        copy_down(address, folder, wanted)
        remove_others(folder, scope, {one.name for one in objects})


def heed_hands(folder: Path, objects: Iterable[Object]) -> set[str]:
    """Remove here what somebody has removed there, though no writer has been at it; names of what is another.

    Of a writer that did not come to its end nothing is known: its files are newer, perhaps.
    """
    synced, there = read_synced(folder) or {}, {one.name: one.size for one in objects}
    for name in synced.keys() - there.keys():
        (folder / name).unlink(missing_ok=True)
    return {name for name, stamp in synced.items() if there.get(name, stamp[0]) != stamp[0]}


def copy_down(address: Address, folder: Path, objects: Iterable[Object]) -> None:
    """Fetch those of ``objects`` that are not in ``folder`` already.

    Raises:
        StorageError: they cannot be read, or not be written here.
    """

    def fetch(one: Object) -> None:
        try:
            download(address / one.name, folder / one.name, one)
        except FileNotFoundError:
            return  # removed since it was listed

    missing = [one for one in objects if not _is_same(folder / one.name, one)]
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        list(pool.map(fetch, missing))


def _is_same(path: Path, found: Object) -> bool:
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    is_settled = min(state.st_ctime, time.time()) - found.changed_ns / 1e9 > YOUNG_S
    return (state.st_size, state.st_mtime_ns) == (found.size, found.changed_ns) and is_settled


def remove_others(folder: Path, scope: Scope, names: set[str]) -> None:
    """Remove local files that the storage no longer has, but for folders that someone else writes."""
    if not folder.is_dir():
        return
    own = {marker.parent for marker in folder.rglob(MARKER)} - {folder}
    for name in scan(folder, scope):
        path = folder / name
        if name not in names and not own.intersection(path.parents):
            path.unlink(missing_ok=True)
