"""The gate on test images that lie in training or validation too."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import temper
from temper.cluster.evaluate import evaluate_external
from temper.data import write_shards
from temper.data.integrity import WHOLE_BYTES
from temper.records import EvaluationRecord, GateRecord, hash_of_recipe
from temper.run.external_model import ExternalModelSpec, build_foreign
from temper.run.verify import verify_record

ZOO = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
"""


def folders(root: Path) -> Path:
    generator = np.random.default_rng(0)
    for place in ("train/a", "train/b", "val/a", "val/b", "test/a", "test/b"):
        (root / place).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / place / f"{index}.png")
    return root


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    (tmp_path / "zoo.py").write_text(ZOO)
    write_shards(folders(tmp_path / "clean"), tmp_path / "shards/clean")
    return tmp_path / "shards/clean"


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    (tmp_path / "zoo.py").write_text(ZOO)
    source = folders(tmp_path / "leaking")
    for index in range(2):
        shutil.copy(source / f"train/a/{index}.png", source / f"test/a/leak{index}.png")
    shutil.copy(source / "val/b/5.png", source / "test/b/leak.png")
    write_shards(source, tmp_path / "shards/leaking")
    return tmp_path / "shards/leaking"


def evaluated(shards: Path, out: Path | None = None, **changes: Any) -> EvaluationRecord:
    document = {
        "name": "zoo",
        "model": f"{shards.parents[1]}/zoo.py:build",
        "shards": shards,
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.02},
        "evaluation": {"suite": "quick", **changes},
    }
    spec = ExternalModelSpec.model_validate(document)
    return evaluate_external(spec, out or shards.parents[1] / "run")


def gate_of(record: EvaluationRecord) -> GateRecord:
    return next(gate for gate in record.gates if gate.name == "leakage")


def test_test_images_in_training_or_validation_block_and_are_named(leaking: Path, tmp_path: Path) -> None:
    record = evaluated(leaking, tmp_path / "run")
    gate = gate_of(record)
    assert not gate.passed
    assert gate.detail.startswith("3 of 27 test images lie in train or val too: ")
    for index in range(2):
        assert f"train/a/{index}.png = test/a/leak{index}.png" in gate.detail
    assert "val/b/5.png = test/b/leak.png" in gate.detail
    assert "--allow-leakage" in gate.detail
    assert record.status == "blocked"
    checks = verify_record(tmp_path / "run", model=f"{tmp_path}/zoo.py:build").checks
    assert all(check.passed for check in checks if check.name in ("status", "gates again"))


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Patients of six images each; of one, two images lie in test and four in training."""
    (tmp_path / "zoo.py").write_text(ZOO)
    source = folders(tmp_path / "patients")
    for place in ("train/a", "train/b", "val/a", "val/b", "test/a", "test/b"):
        for index in range(12):
            name = place.replace("/", "") + f"p{index // 6}_{index}.png"
            (source / place / f"{index}.png").rename(source / place / name)
    for index in (0, 1):
        (source / f"test/b/testbp0_{index}.png").rename(source / f"test/b/trainbp1_9{index}.png")
    write_shards(source, tmp_path / "shards/patients", group=r"^(.*p\d)_")
    return tmp_path / "shards/patients"


def test_a_patient_in_training_and_test_blocks_and_is_named(patients: Path, tmp_path: Path) -> None:
    record = evaluated(patients, tmp_path / "run")
    gate = gate_of(record)
    assert not gate.passed
    assert record.status == "blocked"
    assert gate.detail == (
        "0 of 24 test images lie in train or val too; 1 groups with 2 test images lie in train or val too: "
        "'trainbp1' (6 in train, 2 in test). move each group into one split and make new shards, or accept "
        "them with --allow-leakage"
    )
    checks = verify_record(tmp_path / "run", model=f"{tmp_path}/zoo.py:build").checks
    assert all(check.passed for check in checks if check.name in ("status", "gates again"))
    allowed = gate_of(evaluated(patients, tmp_path / "allowed", allow_leakage=True))
    assert allowed.passed
    assert allowed.detail.startswith("allowed by evaluation.allow_leakage: 0 of 24 test images")
    assert "'trainbp1' (6 in train, 2 in test)" in allowed.detail


def test_patients_that_are_apart_pass(clean: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "clean", tmp_path / "shards/alone", group=r"^(.*/\d+)\.png")
    gate = gate_of(evaluated(tmp_path / "shards/alone"))
    assert gate == gate_of(evaluated(clean, tmp_path / "other"))


@pytest.mark.parametrize("are_grouped", [False, True])
def test_near_duplicates_block_where_they_are_grouped(tmp_path: Path, are_grouped: bool) -> None:
    (tmp_path / "zoo.py").write_text(ZOO)
    source = folders(tmp_path / "near")
    with Image.open(source / "train/a/3.png") as image:
        darker = (np.asarray(image) * 0.9).astype(np.uint8)
    Image.fromarray(darker).save(source / "test/a/near.png")
    write_shards(source, tmp_path / "shards/near", group_near_duplicates=are_grouped)
    gate = gate_of(evaluated(tmp_path / "shards/near"))
    assert gate.passed is not are_grouped
    assert ("train/a/3.png = test/a/near.png" in gate.detail) is are_grouped


def test_allowed_leakage_is_in_the_record(leaking: Path) -> None:
    gate = gate_of(evaluated(leaking, allow_leakage=True))
    assert gate.passed
    assert gate.detail.startswith(
        "allowed by evaluation.allow_leakage: 3 of 27 test images lie in train or val"
    )


def test_different_images_pass(clean: Path) -> None:
    assert gate_of(evaluated(clean)) == GateRecord(
        name="leakage", passed=True, detail="0 of 24 test images lie in train or val too"
    )


def test_a_model_in_memory_on_shards_is_asked_too_and_arrays_are_not(leaking: Path, tmp_path: Path) -> None:
    model = build_foreign(f"{tmp_path}/zoo.py:build")
    record = temper.evaluate(model, leaking, eps=0.02, suite="quick", image_size=8)
    assert not gate_of(record).passed


@pytest.mark.parametrize(("is_small", "passed"), [(True, False), (False, True)])
def test_older_shards_are_compared_by_bytes_if_they_are_small(
    leaking: Path, monkeypatch: pytest.MonkeyPatch, is_small: bool, passed: bool
) -> None:
    file = leaking / "manifest.json"
    document = json.loads(file.read_text())
    del document["copies"]
    file.write_text(json.dumps(document))
    monkeypatch.setattr("temper.data.integrity.WHOLE_BYTES", WHOLE_BYTES if is_small else 0)
    gate = gate_of(evaluated(leaking))
    assert gate.passed is passed
    assert ("3 of 27" if is_small else "not looked for") in gate.detail


def test_recipes_keep_their_hash_unless_leakage_is_allowed() -> None:
    old = {"evaluation": {"suite": "quick"}}
    assert hash_of_recipe({"evaluation": {"suite": "quick", "allow_leakage": False}}) == hash_of_recipe(old)
    assert hash_of_recipe({"evaluation": {"suite": "quick", "allow_leakage": True}}) != hash_of_recipe(old)
