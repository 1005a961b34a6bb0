"""An evaluation that is killed, changed, and begun again ends where a fresh one ends."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.unit.ended_early import Killed, ends_after

from temper.cluster.evaluate import evaluate_external
from temper.records import EvaluationRecord, read_record
from temper.run.external_model import ExternalModelSpec
from temper.verification import verify_shallow

MODEL = """
import json
from pathlib import Path

import torch
from torch import nn

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(SEED)
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5))
    def forward(self, images):
        return self.layers(CODE - 0.5)

def build():
    return Pooled()
"""
BESIDE = "Path(__file__).with_name('code.json').read_text()"
HIDDEN = {"SEED": f"json.loads({BESIDE})['SEED']", "CODE": f"eval(json.loads({BESIDE})['CODE'])"}
"""The same, read from where no digest of code looks."""
ROUNDED = "(images + (((images * 16).round() / 16 * 255).round() / 255 - images).detach())"
UNCHANGED = {"SEED": "0", "CODE": "images"}
CHANGES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "weights": ({"SEED": "1"}, {}),
    "code": ({"CODE": "images.flip(1)"}, {}),
    "code of few images": ({"CODE": "torch.where(images.amax((1, 2, 3), True) < 1, 0.3, images)"}, {}),
    "code of the gradient": ({"CODE": "images.detach()"}, {}),
    "code of adversarial images": ({"CODE": ROUNDED}, {}),
    "rows": ({}, {"evaluation": {"suite": "quick", "chunk_size": 10, "max_images": 33}}),
    "chunks": ({}, {"evaluation": {"suite": "quick", "chunk_size": 15, "max_images": 40}}),
    "size": ({}, {"image_size": 9}),
    "suite": ({}, {"evaluation": {"suite": "standard", "chunk_size": 10, "max_images": 40}}),
    "seed": ({}, {"seed": 3}),
    "threat": ({}, {"threat": {"norm": "linf", "eps": 0.05}}),
}
NUM_REPORTS = 8
"""Of progress that an unchanged evaluation makes, at least: two members for each of four chunks."""
NUM_KILLS = 5 * len(CHANGES)
WRITTEN_FRAC = 0.5
"""Of kills, those that wait for a file to be half written."""
TWICE_FRAC = 0.3
"""Of kills, those after which the changed evaluation is killed too."""
LEFT = {
    "adversarial.safetensors", "chunks.json", "figure.png", "mistakes.png", "outcomes.parquet", "record.json",
}  # fmt: skip

EVALUATING = """
import json, os, sys, traceback
from pathlib import Path

import foolbox, matplotlib.figure, pyarrow.parquet, torch

torch.set_num_threads(1)
import temper.evaluation.figure
from temper.cluster.evaluate import evaluate_external
from temper.run.external_model import ExternalModelSpec

for line in sys.stdin:
    document, out = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            evaluate_external(ExternalModelSpec.model_validate(document), Path(out))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    print(json.dumps({"process": child}), flush=True)
    print(json.dumps({"status": os.waitpid(child, 0)[1]}), flush=True)
"""
"""A process that evaluates in a process of its own what each line of its input names."""


class Killer:
    """Evaluates elsewhere, and ends that by SIGKILL."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", EVALUATING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.duration_s = 0.0
        """Of an evaluation that nobody kills."""

    def begin(self, document: dict[str, Any], out: Path) -> int:
        """Its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([document, str(out)]) + "\n")
        self.process.stdin.flush()
        return self._said("process")

    def end(self) -> int:
        """How it ended: an exit status, or minus a signal."""
        return os.waitstatus_to_exitcode(self._said("status"))

    def kill(self, document: dict[str, Any], out: Path, dice: random.Random) -> bool:
        """Kill it at a moment that ``dice`` choose; whether it was still there."""
        waits_for_file, number = dice.random() < WRITTEN_FRAC, dice.randrange(8)
        wait_s = 2 * self.duration_s if waits_for_file else dice.uniform(0, self.duration_s)
        child, began, seen = self.begin(document, out), time.monotonic(), set[str]()
        try:
            while time.monotonic() - began < wait_s and len(seen) <= number:
                seen |= half_written(out) if waits_for_file else set()
                time.sleep(0 if waits_for_file else 0.001)
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(child, signal.SIGKILL)
            status = self.end()
        return status == -signal.SIGKILL

    def _said(self, what: str) -> int:
        assert self.process.stdout is not None
        return int(json.loads(self.process.stdout.readline())[what])


def half_written(out: Path) -> set[str]:
    """Files under ``out`` that are being written, or were when their process was killed."""
    with suppress(OSError):  # a folder that went while it was looked into
        return {str(path) for path in out.rglob(".*.tmp")}
    return set()


def document_of(
    folder: Path, digits: dict[str, Path], code: dict[str, str], changes: dict[str, Any], *, hidden: bool
) -> dict[str, Any]:
    """Write the model, and name it; ``hidden``: what changes of it is not in its code."""
    said, text = {**UNCHANGED, **code}, MODEL
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (HIDDEN if hidden else said).items():
        text = text.replace(name, value)
    (folder / "zoo.py").write_text(text)
    (folder / "code.json").write_text(json.dumps({"SEED": int(said["SEED"]), "CODE": said["CODE"]}))
    return {
        "name": "zoo",
        "model": f"{folder / 'zoo.py'}:build",
        "shards": str(digits["target"]),
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.02},
        "evaluation": {"suite": "quick", "chunk_size": 10, "max_images": 40},
        **changes,
    }


def evaluated(document: dict[str, Any], out: Path, kill_after: float = float("inf")) -> EvaluationRecord:
    """Into ``out``, ended after ``kill_after`` reports of progress."""
    return evaluate_external(
        ExternalModelSpec.model_validate(document), out, on_progress=ends_after(kill_after)
    )


def measured(record: EvaluationRecord) -> dict[str, Any]:
    """All that it says but when, how long and from where."""
    passing = {"created", "cost", "recipe", "recipe_hash", "files"}
    said = record.model_dump(mode="json", exclude=passing)
    for attack in said["attacks"]:
        attack.pop("seconds")
    return said


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What each change comes to where nothing was there before."""
    found = {}
    for name, change in CHANGES.items():
        folder = tmp_path_factory.mktemp("fresh")
        found[name] = measured(evaluated(document_of(folder, digits, *change, hidden=False), folder / "run"))
    return found


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, Path]) -> Iterator[Killer]:
    found, folder = Killer(), tmp_path_factory.mktemp("whole")
    document = document_of(folder, digits, {}, {}, hidden=False)
    for number in range(2):  # the first one comes before the process has started
        found.begin(document, folder / str(number))
        began = time.monotonic()
        assert found.end() == 0
        found.duration_s = time.monotonic() - began
    yield found
    assert found.process.stdin is not None
    assert found.process.stdout is not None
    found.process.stdin.close()
    found.process.wait()
    found.process.stdout.close()


@pytest.mark.long
@pytest.mark.parametrize("hidden", [False, True], ids=["in its code", "hidden"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_evaluation_that_ends_early_goes_on_as_a_fresh_one(
    change: str, hidden: bool, digits: dict[str, Path], fresh: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    kill_after = random.Random(change).randrange(NUM_REPORTS // 2, NUM_REPORTS)
    with pytest.raises(Killed):
        evaluated(document_of(tmp_path, digits, {}, {}, hidden=hidden), tmp_path / "run", kill_after)
    changed = document_of(tmp_path, digits, *CHANGES[change], hidden=hidden)
    assert measured(evaluated(changed, tmp_path / "run")) == fresh[change]


@pytest.mark.parametrize(
    "number", [0, *(pytest.param(number, marks=pytest.mark.long) for number in range(1, NUM_KILLS))]
)
def test_a_killed_evaluation_ends_as_a_fresh_one(
    number: int,
    killer: Killer,
    digits: dict[str, Path],
    fresh: dict[str, dict[str, Any]],
    tmp_path: Path,
    record_property: Any,
) -> None:
    """Killed by SIGKILL at any moment, also while a file is written; then one thing changes."""
    dice, change, run = (
        random.Random(f"kill {number}"),
        list(CHANGES)[number % len(CHANGES)],
        tmp_path / "run",
    )
    hidden = dice.random() < 0.5
    while not killer.kill(document_of(tmp_path, digits, {}, {}, hidden=hidden), run, dice):
        shutil.rmtree(run)  # it was over
    record_property("change", change)
    record_property("half_written", [Path(name).name for name in half_written(run)])
    record_property("chunks", len(list(run.rglob("chunk-*.safetensors"))))
    if (run / "record.json").exists():  # killed after its last word
        change = "nothing"
    else:
        changed = document_of(tmp_path, digits, *CHANGES[change], hidden=hidden)
        if dice.random() < TWICE_FRAC:
            record_property("killed_again", killer.kill(changed, run, dice))
        if not (run / "record.json").exists():
            evaluated(changed, run)
            assert {path.name for path in run.iterdir()} == LEFT
    assert measured(read_record(run / "record.json")) == fresh[change]
    assert verify_shallow(run).passed


def test_what_is_changed_matters(fresh: dict[str, dict[str, Any]]) -> None:
    answers = {name: str(said) for name, said in fresh.items() if name != "chunks"}
    assert len(set(answers.values())) == len(answers)
