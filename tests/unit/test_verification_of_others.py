"""Verification of what is not a plain run: models from elsewhere, and folds of a cross-validation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.evaluate import evaluate_external, evaluate_run
from temper.cluster.launch import launch
from temper.records import hash_of_recipe
from temper.run.external_model import ExternalModelSpec
from temper.run.verify import verify_record
from temper.verification import verify_shallow

FOREIGN = """
import torch
from torch import nn

class Answers(nn.Module):
    def __init__(self, probabilities, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.linear, self.probabilities = nn.Linear(3 * 8 * 8, 5), probabilities
    def forward(self, images):
        logits = 5 * self.linear(images.flatten(1) - 0.5)
        return logits.softmax(1) if self.probabilities else logits

def logits():
    return Answers(False)

def probabilities():
    return Answers(True)

def others():
    return Answers(False, seed=1)
"""


@dataclass
class Foreign:
    file: Path
    shards: Path
    out: Path

    def evaluate(self, function: str) -> Path:
        document = {
            "name": function,
            "model": f"{self.file}:{function}",
            "shards": str(self.shards),
            "image_size": 8,
            "threat": {"norm": "linf", "eps": 0.02},
            "evaluation": {"max_images": 20},
        }
        evaluate_external(ExternalModelSpec.model_validate(document), self.out / function)
        return self.out / function


@pytest.fixture
def foreign(digits: dict[str, Path], tmp_path: Path) -> Foreign:
    (tmp_path / "zoo.py").write_text(FOREIGN)
    return Foreign(tmp_path / "zoo.py", digits["target"], tmp_path)


def test_a_model_from_elsewhere_is_verified_with_its_function(foreign: Foreign) -> None:
    record = foreign.evaluate("logits")
    found = verify_record(record)
    assert found.passed, found.failed
    assert "give --model module:function" in found.not_checked[0]
    assert not {"model", "attacked again"} & {check.name for check in found.checks}
    found = verify_record(record, model=f"{foreign.file}:logits")
    assert found.passed, found.failed
    assert {"model", "attacked again"} <= {check.name for check in found.checks}
    found = verify_record(record, model=f"{foreign.file}:others")
    assert {"model", "predictions"} <= {check.name for check in found.failed}


def test_a_gate_that_only_passes_in_the_record_is_caught(foreign: Foreign) -> None:
    record = foreign.evaluate("probabilities")
    document = json.loads((record / "record.json").read_text())
    assert document["status"] == "blocked"
    assert verify_record(record, model=f"{foreign.file}:probabilities").passed
    document["status"] = "ok"
    for gate in document["gates"]:
        gate["passed"] = True
    (record / "record.json").write_text(json.dumps(document))
    assert verify_shallow(record).passed
    found = verify_record(record, model=f"{foreign.file}:probabilities")
    assert "gates again" in {check.name for check in found.failed}


def test_a_fold_of_a_cross_validation_is_verified_as_one(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(data__fold={"index": 1, "count": 3}, epochs=1, evaluation__max_images=24)
    assert hash_of_recipe(recipe.resolved()) == recipe.hash
    launch(recipe, tmp_path / "run")
    evaluate_run(tmp_path / "run")
    found = verify_record(tmp_path / "run", num_sampled=8)
    assert found.passed, found.failed


def test_the_hash_of_a_recipe_is_the_recipe_s_own(tiny_recipe: Any) -> None:
    for recipe in (tiny_recipe(), tiny_recipe(optim__lr=0.2, name="other")):
        assert hash_of_recipe(recipe.resolved()) == recipe.hash
