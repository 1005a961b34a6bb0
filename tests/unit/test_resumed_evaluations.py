"""An evaluation that is killed, changed, and begun again ends where a fresh one ends."""

import random
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.external_evaluation import evaluate_external
from temper.cluster.external_model import ExternalModelSpec
from temper.records import EvaluationRecord

MODEL = """
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
UNCHANGED = {"SEED": "0", "CODE": "images"}
CHANGES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "weights": ({"SEED": "1"}, {}),
    "forward": ({"CODE": "images.flip(1)"}, {}),
    "forward of few images": ({"CODE": "torch.where(images.amax((1, 2, 3), True) < 1, 0.3, images)"}, {}),
    "gradient": ({"CODE": "images.detach()"}, {}),
    "rows": ({}, {"evaluation": {"suite": "quick", "chunk_size": 10, "max_images": 33}}),
    "chunks": ({}, {"evaluation": {"suite": "quick", "chunk_size": 15, "max_images": 40}}),
    "size": ({}, {"image_size": 9}),
    "suite": ({}, {"evaluation": {"suite": "standard", "chunk_size": 10, "max_images": 40}}),
    "seed": ({}, {"seed": 3}),
    "threat": ({}, {"threat": {"norm": "linf", "eps": 0.05}}),
}
NUM_REPORTS = 8
"""Of progress that an unchanged evaluation makes, at least: two members for each of four chunks."""


class Killed(BaseException):
    """As SIGKILL: nothing is tidied up for it."""


def evaluated(
    folder: Path,
    digits: dict[str, Path],
    code: dict[str, str],
    changes: dict[str, Any],
    kill_after: float = float("inf"),
) -> EvaluationRecord:
    """Into ``folder``, ended after ``kill_after`` reports of progress."""
    text = MODEL
    for name, value in {**UNCHANGED, **code}.items():
        text = text.replace(name, value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zoo.py").write_text(text)
    document = {
        "name": "zoo",
        "model": f"{folder / 'zoo.py'}:build",
        "shards": digits["target"],
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.02},
        "evaluation": {"suite": "quick", "chunk_size": 10, "max_images": 40},
        **changes,
    }
    reports = 0

    def on_progress(*args: Any) -> None:
        nonlocal reports
        reports += 1
        if reports > kill_after:
            raise Killed

    return evaluate_external(
        ExternalModelSpec.model_validate(document), folder / "run", on_progress=on_progress
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
    folder = tmp_path_factory.mktemp("fresh")
    return {name: measured(evaluated(folder / name, digits, *change)) for name, change in CHANGES.items()}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "number", [0, *(pytest.param(number, marks=pytest.mark.long) for number in range(1, 5))]
)
def test_a_killed_evaluation_ends_as_a_fresh_one(
    change: str, number: int, digits: dict[str, Path], fresh: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    kill_after = random.Random(f"{change}{number}").randrange(NUM_REPORTS)
    with pytest.raises(Killed):
        evaluated(tmp_path, digits, {}, {}, kill_after)
    assert measured(evaluated(tmp_path, digits, *CHANGES[change])) == fresh[change]


def test_what_is_changed_matters(fresh: dict[str, dict[str, Any]]) -> None:
    answers = {name: str(said) for name, said in fresh.items() if name != "chunks"}
    assert len(set(answers.values())) == len(answers)
