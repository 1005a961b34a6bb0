"""Checks what a cluster's nodes can do with the paths of a job; runs there as a small job before it.

Every node that is up writes a file into ``out`` and looks for those of the others: storage that is not the
same everywhere shows. It leaves nothing behind.
"""

import json
import os
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from temper.cluster.jobs.request import PROBE_ANSWER
from temper.errors import TemperError
from temper.storage import Address, delete, exists, is_remote, write_bytes

MARK = b"temper looks whether it can write here\n"

PATIENCE_S = 60
"""For a node's answer; one that is being removed gives none."""
STORAGE_S = 20
"""For S3 within it, so that a node that cannot reach it can still say so."""


def main(question: str) -> None:
    """Print one line: ``PROBE_ANSWER`` and what was found, as JSON."""
    import ray

    from temper.cluster.runtime import start_ray

    asked = json.loads(question)
    out, reads = asked["out"], asked["reads"]
    start_ray()
    made = missing_folders(out)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    marks = {node["NodeID"]: f".temper-probe-{uuid.uuid4().hex}" for node in nodes}
    try:
        written = _on_each(marks, lambda node: (write_mark, out, marks[node]))
        wrote = [marks[node] for node, answer in written.items() if answer == ""]
        looked = _on_each(marks, lambda _: (look_around, out, wrote, reads))
    finally:
        tidy(out, list(marks.values()), made)
    found = [
        {
            "node": node["NodeManagerAddress"],
            "is_head": "node:__internal_head__" in node["Resources"],
            "write_error": written[node["NodeID"]],
            **(looked[node["NodeID"]] or {"unseen": 0, "unread": {}}),
        }
        for node in nodes
    ]
    print(PROBE_ANSWER + json.dumps({"ray": ray.__version__, "nodes": found}))  # noqa: T201  # read by who asked


def _on_each(marks: dict[str, str], call: Any) -> dict[str, Any]:
    """The answer of every node by its id; a text where it gave none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tasks = {}
    for node in marks:
        function, *arguments = call(node)
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        # No CPU is asked for, so that it runs on a node that is full, and calls no new one.
        remote = ray.remote(num_cpus=0, max_retries=0)(_briefly)
        tasks[node] = remote.options(scheduling_strategy=here).remote(function, *arguments)
    ready, _ = ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=PATIENCE_S)
    answers: dict[str, Any] = {}
    for node, task in tasks.items():
        try:
            answers[node] = ray.get(task) if task in ready else None
        except ray.exceptions.RayError:
            answers[node] = None
    return answers


def _briefly(function: Callable[..., Any], *arguments: Any) -> Any:
    os.environ.setdefault("TEMPER_STORAGE_LIMIT_S", str(STORAGE_S))
    return function(*arguments)


def write_mark(out: str, name: str) -> str:
    """Write a small file into ``out``; the reason where that fails, else nothing."""
    try:
        if is_remote(out):
            write_bytes(Address.parse(out) / name, MARK)
        else:
            Path(out).mkdir(parents=True, exist_ok=True)
            (Path(out) / name).write_bytes(MARK)
    except (OSError, TemperError) as problem:
        return str(problem)
    return ""


def look_around(out: str, names: list[str], reads: dict[str, str]) -> dict[str, Any]:
    """How many files of all nodes this one does not see, and which paths it cannot read."""
    unread = {purpose: place for purpose, place in reads.items() if not _is_there(place)}
    return {"unseen": sum(not _is_there(f"{out}/{name}") for name in names), "unread": unread}


def missing_folders(out: str) -> list[str]:
    """Folders that the first write will make, the deepest first; none in an object store."""
    if is_remote(out):
        return []
    return [str(folder) for folder in (Path(out), *Path(out).parents) if not folder.exists()]


def tidy(out: str, names: list[str], made: list[str]) -> None:
    """Remove the files, and the folders that were made for them, if nothing else is in them."""
    for name in names:
        with suppress(OSError, TemperError):  # it was not written
            if is_remote(out):
                delete(Address.parse(out) / name)
            else:
                (Path(out) / name).unlink()
    for folder in made:
        try:
            Path(folder).rmdir()
        except OSError:
            return


def _is_there(place: str) -> bool:
    try:
        return exists(Path(place))
    except (OSError, TemperError):
        return False


if __name__ == "__main__":
    main(sys.argv[1])
