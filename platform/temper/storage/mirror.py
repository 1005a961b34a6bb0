"""Folders that are written here and kept in S3: a thread copies what has changed, so that work never waits.

Whoever writes a folder puts a token beside it. When it begins again on the same machine and the token is
still its own, the local files are as new as any, and stay; else somebody else has written since, and what
lies in the storage takes their place. A writer that finds another's token stops: two never mix.
"""

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from temper.addresses import Address, address_of, in_words, stage_root
from temper.errors import StorageError, TemperError
from temper.records import write_atomic
from temper.storage.fetch import RUNS_WITHIN, WRITTEN_HERE, copy_down, heed_hands, remove_others
from temper.storage.objects import delete, list_objects, read_bytes, upload, write_bytes
from temper.storage.scope import MARKER, SYNCED, Marker, Scope, Stamp, process_lock, read_synced, scan

COMMITS = frozenset(
    {"state.json", "record.json", "crossval.json", "sweep.json", "manifest.json", "entry.json"}
)
"""Files that speak of others: they are copied last."""
LATE = ("wandb/", "tensorboard/")
"""Logs that grow with every epoch: copied now and then, and at the end."""
LATE_S = 30.0
POLL_S = 0.5
SETTLE_S = 0.2
"""After a change is seen, for what is written together with it."""
NUM_SNAPSHOTS = 100

_ACTIVE: dict[Path, "Mirror"] = {}


@contextmanager
def mirrored(path: Path, *, without: frozenset[str] = RUNS_WITHIN, is_flat: bool = False) -> Iterator[Path]:
    """The local folder for what is written at ``path``; it is copied to its address meanwhile and at the end.

    A path of this machine comes back as it is. ``without``: folders that others write; ``is_flat``: all are.

    Raises:
        StorageError: the storage refuses, is away for too long, or another process writes there.
    """
    address = address_of(path)
    if address is None:
        yield path
        return
    folder = stage_root() / address.place
    if folder in _ACTIVE:
        yield folder
        return
    mirror = Mirror(folder, address, Scope(without, is_flat))
    mirror.open()
    try:
        yield folder
    except BaseException as problem:
        if isinstance(problem, TemperError):
            problem.args = tuple(in_words(str(part)) for part in problem.args)
        with suppress(StorageError):  # what went wrong first is what is told
            mirror.close()
        raise
    mirror.close()


def publish(path: Path) -> None:
    """Wait until what this process has written at ``path`` lies in the storage too, where it belongs there.

    Raises:
        StorageError: it does not get there.
    """
    for folder in (path, *path.parents):
        if folder in _ACTIVE:
            _ACTIVE[folder].flush()
            return


class Mirror:
    """One folder and its address, while this process writes it."""

    def __init__(self, folder: Path, address: Address, scope: Scope) -> None:
        self._folder, self._address, self._scope = folder, address, scope
        self._shelf = folder / f".shelf-{uuid.uuid4().hex[:8]}"
        self._token = uuid.uuid4().hex
        self._known: dict[str, Stamp] = {}
        """Files as they were when they were copied."""
        self._there: set[str] = set()
        """Names that the storage has."""
        self._late_at = -LATE_S
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"mirror {address}", daemon=True)
        self._is_lost = False

    def open(self) -> None:
        """Make the local folder what it should be, claim the address, and begin to watch.

        Raises:
            StorageError: the storage refuses or is away, or the copy cannot be written.
        """
        with process_lock(self._folder):
            mine, theirs = Marker.read(self._folder), read_bytes(self._address / MARKER)
            listed = list_objects(self._address)
            objects = [one for one in listed if self._scope.holds(one.name)]
            self._there = {one.name for one in objects}
            complete = self._scope
            if mine is not None and mine.token == Marker.token_of(theirs) and mine.scope.covers(self._scope):
                changed, complete = heed_hands(self._folder, listed), mine.scope
                copy_down(self._address, self._folder, [one for one in objects if one.name in changed])
                known = (read_synced(self._folder) or {}).items()
                self._known = {name: stamp for name, stamp in known if name not in changed}
            else:
                copy_down(self._address, self._folder, objects)
                remove_others(self._folder, self._scope, self._there)
                self._known = scan(self._folder, self._scope)
            (self._folder / SYNCED).unlink(missing_ok=True)
            for stale in self._folder.glob(".shelf-*"):
                shutil.rmtree(stale, ignore_errors=True)
            marker = Marker(self._token, complete)
            write_bytes(self._address / MARKER, marker.to_json())
            write_atomic(self._folder / MARKER, marker.to_json())
        _ACTIVE[self._folder] = self
        WRITTEN_HERE[self._folder] = self._scope
        self._thread.start()

    def _watch(self) -> None:
        seen: dict[str, Stamp] = {}
        while not self._stop.wait(POLL_S):
            found = scan(self._folder, self._scope)
            if found == seen:
                continue
            self._stop.wait(SETTLE_S)
            try:
                self._copy(is_last=False)
                seen = found
            except (StorageError, OSError):
                # It is tried again at the next look; ``flush`` and ``close`` say what is wrong.
                if self._is_lost:
                    return

    def flush(self) -> None:
        """Copy what has changed, and wait for it.

        Raises:
            StorageError: it does not get there; the local folder is whole.
        """
        try:
            self._copy(is_last=True)
        except StorageError as problem:
            hint = "" if self._is_lost else "; the local copy is complete and will be reused here"
            raise StorageError(f"{problem}{hint}") from None
        except OSError as problem:
            raise StorageError(f"{self._folder}: cannot be copied to {self._address} ({problem})") from None

    def close(self) -> None:
        """The last copy.

        Raises:
            StorageError: as ``flush``.
        """
        self._stop.set()
        self._thread.join()
        try:
            self.flush()
            write_atomic(self._folder / SYNCED, json.dumps(self._known).encode())
        finally:
            shutil.rmtree(self._shelf, ignore_errors=True)
            _ACTIVE.pop(self._folder, None)
            WRITTEN_HERE.pop(self._folder, None)

    def _copy(self, *, is_last: bool) -> None:
        """Files first, then those that speak of them; what is gone here is removed there at the end."""
        with self._lock:
            is_late = is_last or time.monotonic() - self._late_at > LATE_S
            found, commits, shelved = self._snapshot(is_late)
            if not shelved and not commits and self._there <= found.keys():
                return
            self._check_alone()
            for name in shelved:
                upload(self._shelf / name, self._address / name)
                self._note(name, found[name])
            for name in sorted(commits):
                write_bytes(self._address / name, commits[name])
                self._note(name, found[name])
            for name in sorted(self._there - found.keys()):
                delete(self._address / name)
                self._there.discard(name)
                self._known.pop(name, None)
            self._late_at = time.monotonic() if is_late else self._late_at
            shutil.rmtree(self._shelf, ignore_errors=True)

    def _note(self, name: str, stamp: Stamp) -> None:
        self._known[name] = stamp
        self._there.add(name)

    def _check_alone(self) -> None:
        if self._is_lost or Marker.token_of(read_bytes(self._address / MARKER)) != self._token:
            self._is_lost = True
            raise StorageError(
                f"{self._address}: another process started to write there, or it was removed; this one "
                "stops writing"
            )

    def _snapshot(self, is_late: bool) -> tuple[dict[str, Stamp], dict[str, bytes], list[str]]:
        """All files as they are, the content of changed commits, and changed others, shelved where they stay.

        Of one moment: taken again if a commit has changed meanwhile, for a later one speaks of other files.
        """
        for _ in range(NUM_SNAPSHOTS):
            shutil.rmtree(self._shelf, ignore_errors=True)
            before = scan(self._folder, self._scope)
            changed = [name for name, stamp in before.items() if self._known.get(name) != stamp]
            changed = [name for name in changed if is_late or not name.startswith(LATE)]
            try:
                commits = {name: (self._folder / name).read_bytes() for name in changed if _is_commit(name)}
                others = [name for name in changed if not _is_commit(name)]
                for name in others:
                    self._put_aside(name)
            except FileNotFoundError:
                continue
            after = scan(self._folder, self._scope)
            if all(after.get(name) == before.get(name) for name in {*before, *after} if _is_commit(name)):
                return before, commits, others
            time.sleep(0.01)
        raise StorageError(f"{self._folder}: changes faster than it can be copied")

    def _put_aside(self, name: str) -> None:
        source, target = self._folder / name, self._shelf / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            os.link(source, target)  # written whole under another name, then renamed: it never changes
        else:
            shutil.copyfile(source, target)


def _is_commit(name: str) -> bool:
    return name.rpartition("/")[2] in COMMITS
