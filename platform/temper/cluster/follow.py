"""Following ``metrics.jsonl`` for epochs that end in other processes."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from temper.records import count_from_zero

POLL_S = 0.3


@contextmanager
def follow_epochs(path: Path, on_epoch: Callable[[Mapping[str, Any]], None] | None) -> Iterator[None]:
    """Call ``on_epoch`` for each line that is appended to ``path`` while the block runs."""
    if on_epoch is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(path, on_epoch, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(path: Path, on_epoch: Callable[[Mapping[str, Any]], None], stop: threading.Event) -> None:
    num_seen = len(_lines(path))
    while True:
        is_last_look = stop.wait(POLL_S)
        lines = _lines(path)
        for line in lines[num_seen:]:
            metrics = count_from_zero(json.loads(line))
            on_epoch({**metrics, "epoch": metrics["epoch"] + 1})
        num_seen = len(lines)
        if is_last_look:
            return


def _lines(path: Path) -> list[str]:
    """The complete lines of the file; a line that is still being written comes later."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
