"""Short sweeps one after the other, with a random kill each minute: what is lost, and what is left behind.

    python bench/soak.py [--minutes 60] [--seed 0]

One Ray stands all the time. A kill takes the driver of the sweep that runs, or one of its trials' or
evaluations' processes, at a random moment; a sweep whose driver has died is resumed. Prints a Markdown table;
exit status 1 if anything was lost, repeated or left behind.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import ray
import yaml

from digit_tasks import write_tasks
from temper.cluster.runtime import start_ray
from temper.records import SweepFolder, read_ledger
from temper.spec import apply_overrides, read_yaml

ROOT = Path(__file__).parents[1]
EPOCHS, SAMPLES = 6, 5
SPACE = {
    "samples": SAMPLES,
    "finalists": 1,
    "scheduler": None,
    "baseline": {"objective.adversary": None},
    "parameters": {"objective.alpha": {"loguniform": [0.03, 1.0]}, "optim.lr": {"choice": [0.05, 0.1]}},
}
SMALL = {
    "epochs": EPOCHS, "evaluation.suite": "quick", "evaluation.max_images": 16, "validation.max_images": 32,
}  # fmt: skip
SETTLE_S = 30
"""Until Ray has ended the processes of a driver that has gone."""


@dataclass
class Tally:
    """What happened."""

    sweeps: int = 0
    trials: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    generator, tally = random.Random(asked.seed), Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = folder / "recipe.yaml"
        document = read_yaml(ROOT / "jobs/recipes/tiny.yaml")
        recipe.write_text(yaml.safe_dump(apply_overrides(document, {**write_tasks(folder), **SMALL})))
        start_ray()
        end, next_kill = time.monotonic() + 60 * asked.minutes, time.monotonic() + generator.uniform(0, 60)
        before: tuple[Counter[str], int, int] | None = None
        while time.monotonic() < end:
            next_kill = soak(recipe, folder, generator, tally, next_kill)
            if before is None:  # the first sweep leaves what Ray keeps warm
                before = left_behind()
        after = left_behind()
    before = before or after
    show(tally, before, after)
    raise SystemExit(bool(tally.problems or after[0] - before[0] or after[1]) or after[2] > before[2])


def soak(recipe: Path, folder: Path, generator: random.Random, tally: Tally, next_kill: float) -> float:
    """One sweep to its end, whatever dies on the way; when the next kill is due."""
    out = SweepFolder(folder / f"sweep-{tally.sweeps}")
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump({**SPACE, "seed": tally.sweeps}))
    arguments: list[object] = [recipe, space, "--out", out.path]
    while True:
        process = start(*arguments)
        while process.poll() is None:
            time.sleep(0.1)
            if time.monotonic() >= next_kill:
                victim = kill_something(process, generator)
                if victim is not None:
                    tally.kills[victim] = tally.kills.get(victim, 0) + 1
                    next_kill = time.monotonic() + generator.uniform(30, 90)
        said = process.communicate()[0]
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            tally.problems.append(f"{out.path.name} ended with {process.returncode}: {said[-300:]}")
            break
        arguments = ["--resume", out.path] if out.space.exists() else arguments
    tally.sweeps += 1
    check(out, tally)
    return next_kill


def start(*arguments: object) -> subprocess.Popen[str]:
    address = ray.get_runtime_context().gcs_address
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs/sweep.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RAY_ADDRESS": address},
    )


def kill_something(driver: subprocess.Popen[str], generator: random.Random) -> str | None:
    """SIGKILL for the driver or a process that works for it; which kind, or ``None`` if none is there."""
    victims = {"driver": [driver.pid], "trial": working("ImplicitFunc"), "evaluation": working("valuat")}
    kinds = [kind for kind, pids in victims.items() if pids]
    kind = generator.choice(kinds)
    try:
        os.kill(generator.choice(victims[kind]), signal.SIGKILL)
    except ProcessLookupError:
        return None
    return kind


def working(name: str) -> list[int]:
    """Processes of our Ray that are not idle, and whose title holds ``name``."""
    own = psutil.Process()
    found = []
    for process in own.children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and "ray::IDLE" not in title and name in title:
            found.append(process.pid)
    return sorted(found)


def check(out: SweepFolder, tally: Tally) -> None:
    """Every trial once, every epoch of it once."""
    if not out.ledger.exists():
        tally.problems.append(f"{out.path.name} has no ledger")
        return
    rows = read_ledger(out.ledger)
    tally.trials += len(rows)
    names = sorted(row.trial for row in rows)
    if len(names) != SAMPLES + 1 or len(set(names)) != len(names):
        tally.problems.append(f"{out.path.name}: trials {names}")
    for row in rows:
        lines = (out.trial(row.trial).metrics).read_text().splitlines()
        epochs = [json.loads(line)["epoch"] for line in lines if "train/loss" in line]
        if row.status != "finished" or epochs != list(range(EPOCHS)):
            tally.problems.append(f"{out.path.name} {row.trial}: {row.status}, epochs {epochs}, {row.error}")
    if not out.summary.exists():
        tally.problems.append(f"{out.path.name} has no summary")


def left_behind() -> tuple[Counter[str], int, int]:
    """Names of actors and of processes at work, placement groups, bytes in the object store, of all Ray."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address
    from ray.util.state import list_actors, list_placement_groups

    address = ray.get_runtime_context().gcs_address
    time.sleep(SETTLE_S)
    alive = Counter(str(one.class_name) for one in list_actors(address, limit=10_000) if one.state != "DEAD")
    titles = Counter(" ".join(psutil.Process(pid).cmdline()).strip() for pid in working(""))
    groups = [one for one in list_placement_groups(address, limit=10_000) if one.state != "REMOVED"]
    store = get_memory_info_reply(get_state_from_address(address)).store_stats
    return alive | titles, len(groups), int(store.object_store_bytes_used)


def show(tally: Tally, before: tuple[Counter[str], int, int], after: tuple[Counter[str], int, int]) -> None:
    kills = ", ".join(f"{count} x {kind}" for kind, count in sorted(tally.kills.items()))
    print("| | |")
    print("|---|---:|")
    print(f"| sweeps | {tally.sweeps} |")
    print(f"| trials | {tally.trials} |")
    print(f"| kills | {sum(tally.kills.values())} ({kills}) |")
    print(f"| lost, repeated or failed | {len(tally.problems)} |")
    more, kept = after[0] - before[0], ", ".join(sorted(before[0]))
    print(f"| processes left behind | {more.total()} {', '.join(sorted(more))} |")
    print(f"| processes that Ray keeps from the first sweep on | {before[0].total()} ({kept}) |")
    print(f"| placement groups left behind | {after[1]} |")
    print(f"| object store grew by | {max(0, after[2] - before[2])} bytes |")
    for problem in tally.problems:
        print(f"\n- {problem}")


if __name__ == "__main__":
    main()
