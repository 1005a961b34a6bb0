"""Accuracy per value of each attribute: in the record, recomputed from its outcomes, and on the card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from temper.cluster.evaluate import evaluate_external
from temper.data import write_shards
from temper.leaderboard import build_leaderboard
from temper.records import (
    EvaluationRecord,
    Proportion,
    SliceRecord,
    read_outcomes,
    read_record,
    worst_slice,
)
from temper.run.external_model import ExternalModelSpec
from temper.run.slices import MAX_VALUES
from temper.run.verify import verify_record
from temper.statistics import slices_of, wilson

ZOO = """
import torch
from torch import nn

class Brightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([mean - 0.5, 0.5 - mean], 1) * self.scale

def build():
    return Brightness()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright images; at the site "east" they are so grey that a small attack fools the model."""
    folder = tmp_path_factory.mktemp("slices")
    (folder / "zoo.py").write_text(ZOO)
    generator = np.random.default_rng(0)
    rows = []
    for split in ("train", "val", "test"):
        for name, shift in (("bright", 1), ("dark", -1)):
            (folder / "set" / split / name).mkdir(parents=True)
            for index in range(30):
                site = ("west", "east", "")[index % 3]
                mean = 127.5 + shift * (2 if site == "east" else 60)
                pixels = generator.normal(mean, 3, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                file = f"{split}/{name}/{index}.png"
                Image.fromarray(pixels).save(folder / "set" / file)
                known = [f"p-{split}-{name}-{index}", site, f"{index}-{split}-{name}"]
                rows.append(",".join([file, *known, "old" if index < 4 else "new"]))
    (folder / "set/metadata.csv").write_text("\n".join(["file_name,group,site,date,camera", *rows]) + "\n")
    write_shards(folder / "set", folder / "shards")
    document = {
        "name": "zoo",
        "model": f"{folder}/zoo.py:build",
        "shards": folder / "shards",
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.03},
        "evaluation": {"suite": "quick", "allow_leakage": True},
    }
    evaluate_external(ExternalModelSpec.model_validate(document), folder / "run")
    return folder / "run"


def found(record: EvaluationRecord) -> dict[str, SliceRecord]:
    return {f"{one.attribute}={one.value}": one for one in record.slices}


def test_the_record_has_each_value_of_each_attribute(run: Path) -> None:
    record = read_record(run / "record.json")
    slices = found(record)
    assert not any(name.startswith("date=") for name in slices), f"60 values, more than {MAX_VALUES}"
    assert list(slices)[:2] == ["site=east", "site=west"]
    assert {"camera=new", "camera=old"} < set(slices)
    assert not any(name.startswith("group=") for name in slices), "groups of a few images are no slices"
    assert slices["site=west"].robust_acc == wilson(20, 20)
    assert slices["site=east"].robust_acc.value < 0.2
    assert slices["site=east"].clean_acc.total == 20, "images of unknown site are in none"
    outcomes = read_outcomes(run / "outcomes.parquet")
    site = np.array(outcomes["attribute/site"].to_pylist())
    robust = np.array(outcomes["robust"].to_pylist())
    assert slices["site=east"].robust_acc == wilson(int(robust[site == "east"].sum()), 20)
    worst = worst_slice(record.slices)
    assert worst is not None
    assert (worst.attribute, worst.value) == ("site", "east")


def test_slices_are_recomputed_from_the_outcomes_and_the_shards(run: Path, tmp_path: Path) -> None:
    checks = {check.name: check for check in verify_record(run, model=f"{run.parent}/zoo.py:build").checks}
    assert checks["slices"].passed
    assert checks["images"].passed
    assert checks["columns"].passed
    file = tmp_path / "record.json"
    document = json.loads((run / "record.json").read_text())
    for one in document["slices"]:
        if one["value"] == "east":
            one["robust_acc"] = wilson(19, 20).model_dump()
    for other in run.iterdir():
        if other.is_file() and other.name != "record.json":
            (tmp_path / other.name).write_bytes(other.read_bytes())
    file.write_text(json.dumps(document))
    again = verify_record(tmp_path, model=f"{run.parent}/zoo.py:build").checks
    assert [check.name for check in again if not check.passed and check.name == "slices"] == ["slices"]


def test_the_card_names_the_worst_slice(run: Path, tmp_path: Path) -> None:
    build_leaderboard([run], tmp_path / "out")
    card = next((tmp_path / "out/models").iterdir()).read_text()
    assert "Worst: site <bdi>east</bdi>" in card
    assert "<bdi>camera</bdi>: <bdi>old</bdi>" in card


def test_records_without_slices_still_load(run: Path, tmp_path: Path) -> None:
    document = json.loads((run / "record.json").read_text())
    del document["slices"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    assert read_record(tmp_path / "record.json").slices == []


def test_small_slices_are_not_called_the_worst() -> None:
    def one(value: str, count: int, total: int) -> SliceRecord:
        share: Proportion = wilson(count, total)
        return SliceRecord(attribute="site", value=value, clean_acc=share, robust_acc=share)

    worst = worst_slice([one("a", 0, 9), one("b", 5, 10), one("c", 50, 90)])
    assert worst is not None
    assert worst.value == "b"
    assert worst_slice([one("a", 0, 9)]) is None
    assert slices_of({"correct": np.ones(3, bool), "robust": np.ones(3, bool)}) == []


def test_without_attributes_there_are_no_slices_and_no_columns(evaluated_run: Any) -> None:
    assert read_record(evaluated_run / "record.json").slices == []
    assert not [
        name for name in read_outcomes(evaluated_run / "outcomes.parquet").column_names if "attribute" in name
    ]
