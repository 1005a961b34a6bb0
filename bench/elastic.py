"""A run on Ray Train whose nodes go and come: what it loses, and how long until it goes on.

    python bench/elastic.py [--drain]

On a cluster of its own on this machine, two nodes with a worker each: one is taken away without a word (or,
with ``--drain``, with the notice that a spot instance gets), later one joins. Prints one JSON line.
"""

import argparse
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 400
NOTICE_S = 30.0
ATTEMPTS = 4


def wait_for(what: str, condition: Callable[[], bool], thread: threading.Thread) -> float:
    """Seconds until ``condition`` holds."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > LIMIT_S or not thread.is_alive():
            raise SystemExit(f"no {what} after {time.monotonic() - started:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - started


def drain(node: Any) -> None:
    """Tell the cluster that ``node`` will be taken away."""
    import ray
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    deadline_ms = int((time.time() + NOTICE_S) * 1000)
    is_accepted, why = gcs.drain_node(node.node_id, reason, "spot", deadline_ms)
    assert is_accepted, why


def add_node(cluster: Any, **arguments: Any) -> Any:
    """Ray gives its processes 30 s to start, which a busy machine may exceed."""
    for attempt in range(ATTEMPTS):
        try:
            port = {} if cluster.head_node else {"dashboard_port": free_port()}
            return cluster.add_node(**arguments, **port)
        except Exception:  # Ray raises a bare Exception
            if attempt + 1 == ATTEMPTS:
                raise
    return None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def recipe_of(folder: Path, epochs: int) -> Any:
    from temper.data import write_shards
    from temper.digits import write_digits
    from temper.recipe import load_recipe

    source, target = write_digits(folder / "images")
    write_shards(source, folder / "source")
    write_shards(target, folder / "target")
    root = Path(__file__).parents[1]
    return load_recipe(
        root / "jobs/recipes/tiny.yaml",
        {
            "data.target": str(folder / "target"),
            "data.source": str(folder / "source"),
            "data.batch_size": 32,
            "data.shots_per_class": 40,
            "epochs": epochs,
            "objective.adversary.steps": 20,
            "workers.num_workers": [1, 2],
            "workers.use_gpu": False,
            "checkpoint.every_minutes": 0.05,
            "tracking.samples": True,
            "validation": {"steps": 1, "max_images": 16},
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    os.environ |= {
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
        "RAY_raylet_start_wait_time_s": "150",
        "RAY_agent_register_timeout_ms": "150000",
    }
    from ray.cluster_utils import Cluster

    import temper.cluster.workers as on_workers
    from temper.cluster.launch import launch
    from temper.records import RunFolder
    from temper.training import read_samples, read_state

    on_workers.RESIZE_INTERVAL_S = 5.0
    folder = Path(tempfile.mkdtemp(prefix="elastic-"))
    recipe, run = recipe_of(folder, options.epochs), RunFolder(folder / "run")
    cluster = Cluster()
    add_node(cluster, num_cpus=0)
    os.environ["RAY_ADDRESS"] = cluster.address
    nodes = [add_node(cluster, num_cpus=1) for _ in range(2)]
    errors: list[BaseException] = []

    def train() -> None:
        try:
            launch(recipe, run.path)
        except BaseException as problem:
            errors.append(problem)

    def lines(rank: int) -> int:
        path = run.samples / f"rank-{rank:05d}.jsonl"
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def at() -> tuple[int, int]:
        rows = read_samples(run)
        return (rows[-1]["epoch"], rows[-1]["step"]) if rows else (0, 0)

    thread = threading.Thread(target=train)
    thread.start()
    told: dict[str, Any] = {"drain": options.drain}
    told["start_s"] = wait_for("two workers", lambda: lines(1) >= 20, thread)
    reached = at()
    if options.drain:
        drain(nodes[1])
        told["saved_s"] = wait_for(
            "save on notice", lambda: (run.last / "state.json").stat().st_mtime > time.time() - 0.5, thread
        )
        time.sleep(NOTICE_S)
    else:
        cluster.remove_node(nodes[1], allow_graceful=False)
    told["gone_s"] = wait_for(
        "going on with one worker", lambda: _shares_of_last(run) == {0} and at() > reached, thread
    )
    add_node(cluster, num_cpus=1)
    told["joined_s"] = wait_for("going on with two", lambda: _shares_of_last(run) == {0, 1}, thread)
    thread.join(LIMIT_S)
    told["errors"] = [f"{type(problem).__name__}: {problem}" for problem in errors]
    told["is_finished"] = read_state(run.last).is_finished
    told |= _once(read_samples(run), recipe)
    print(json.dumps(told))

    import ray

    ray.shutdown()
    cluster.shutdown()


def _shares_of_last(run: Any) -> set[int]:
    """Ranks that wrote the newest update."""
    newest: dict[int, tuple[int, int]] = {}
    for path in run.samples.glob("rank-*.jsonl"):
        written = path.read_text().splitlines()
        if written:
            try:
                row = json.loads(written[-1])
            except ValueError:
                continue
            newest[int(path.stem.split("-")[1])] = (row["epoch"], row["step"])
    top = max(newest.values(), default=(0, 0))
    return {
        rank
        for rank, position in newest.items()
        if top[0] * 1000 + top[1] - position[0] * 1000 - position[1] <= 1
    }


def _once(rows: list[dict[str, Any]], recipe: Any) -> dict[str, Any]:
    """How often images were used in each epoch of the updates that are in the weights."""
    twice = missing = 0
    for epoch in range(recipe.epochs):
        used = [row for one in rows if one["epoch"] == epoch for row in one["target"]]
        twice += len(used) - len(set(used))
        missing += len(rows) > 0 and len(used) == 0
    images = {
        len([r for one in rows if one["epoch"] == e for r in one["target"]]) for e in range(recipe.epochs)
    }
    return {
        "updates": len(rows),
        "used_twice": twice,
        "epochs_missing": missing,
        "images_per_epoch": sorted(images),
    }


if __name__ == "__main__":
    main()
