"""What a record says of clean answers: validation, baselines, confusion, two classes, mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from sklearn.metrics import roc_curve as reference_roc
from torch import Tensor, nn

import temper
from temper.cli import main
from temper.cluster.evaluate import evaluate_external
from temper.data import ShardSet, paths_of, stratified_subset, write_shards
from temper.evaluation import EvaluationSpec
from temper.evaluation.evaluate import NUM_KEPT, conclude, evaluate_chunks, evaluate_images, prepare
from temper.evaluation.examples import Answer, Example
from temper.evaluation.figure import as_seen
from temper.records import EvaluationRecord, read_record, sha256_of
from temper.run.external_model import ExternalModelSpec
from temper.run.verify import verify_record
from temper.spec import Threat
from temper.statistics import (
    baselines,
    choose_threshold,
    confusion,
    most_confident,
    operating_point,
    positive_scores,
    roc_curve,
)
from temper.verification import check_record

ZOO = """
import torch
from torch import nn

class Brightness(nn.Module):
    def forward(self, images):
        logit = 20 * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-logit, logit], 1)

def build():
    return Brightness()
"""
CLASSES = ["dark", "light"]
VAL = {"dark": [60, 70, 80, 90, 100, 110], "light": [105, 150, 160, 170, 180, 190]}
TEST = {"dark": [50, 104, 140, 150, 160, 170], "light": [120, 150, 200, 210]}


def test_threshold_is_where_sensitivity_and_specificity_add_up_to_the_most() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9]), np.array([0, 0, 1, 0, 1, 1])
    # At 0.65 and at 0.25 all of one class and two of three of the other are told right.
    assert choose_threshold(scores, labels) == pytest.approx(0.65)
    assert choose_threshold(np.array([0.1, 0.2, 0.8]), np.array([0, 0, 1])) == pytest.approx(0.5)
    assert choose_threshold(scores, np.ones(6, int)) is None


def test_operating_point_counts_by_hand() -> None:
    scores, labels = np.array([0.1, 0.4, 0.6, 0.6, 0.9]), np.array([0, 1, 0, 1, 1])
    point = operating_point(0.6, scores, labels)
    assert point is not None
    assert (point.sensitivity.count, point.sensitivity.total) == (2, 3)
    assert (point.specificity.count, point.specificity.total) == (1, 2)
    assert operating_point(0.5, scores, np.zeros(5, int)) is None


@pytest.mark.parametrize("count", [30, 3000])
def test_roc_is_that_of_scikit_learn(count: int) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, count)
    scores = (labels + generator.normal(size=count)).round(1 if count < 100 else 8)
    curve = roc_curve(scores, labels)
    alarms, hits, _ = reference_roc(labels, scores, drop_intermediate=False)
    known = set(zip(alarms.tolist(), hits.tolist(), strict=True))
    assert {(point.false_positive_rate, point.sensitivity) for point in curve} <= known
    assert (curve[0].false_positive_rate, curve[0].sensitivity) == (0, 0)
    assert (curve[-1].false_positive_rate, curve[-1].sensitivity) == (1, 1)
    assert len(curve) == min(101, len(alarms))


def test_confusion_and_baselines_count_every_image_once() -> None:
    labels, predictions = np.array([0, 0, 0, 1, 2]), np.array([0, 1, -1, 1, 5])
    found = confusion(labels, predictions, ["a", "b", "c"])
    assert found == {"a": {"a": 1, "b": 1, "": 1}, "b": {"b": 1}, "c": {"": 1}}
    base = baselines(labels, ["a", "b", "c"])
    assert (base.majority_class, base.majority_acc, base.chance_acc) == ("a", 0.6, pytest.approx(1 / 3))


def test_mistakes_come_the_surest_first() -> None:
    wrong, confidences = np.array([True, False, True, True]), np.array([0.5, 1.0, 0.9, 0.9])
    assert most_confident(wrong, confidences).tolist() == [2, 3, 0]
    assert positive_scores(np.array([1, 0]), np.array([0.9, 0.9])) == pytest.approx([0.9, 0.1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of brightness, and shards whose test images are other than those of validation."""
    base = tmp_path_factory.mktemp("answers")
    (base / "zoo.py").write_text(ZOO)
    for split, classes in {"train": VAL, "val": VAL, "test": TEST}.items():
        for name, values in classes.items():
            folder = base / "images" / split / name
            folder.mkdir(parents=True)
            for index, value in enumerate(values):
                noise = np.full((8, 8), value, np.uint8)
                noise[0, : 1 + index] += 1 + len(split)  # no copies
                Image.fromarray(noise).save(folder / f"{name}{index}.png")
    write_shards(base / "images", base / "shards")
    evaluated(base, base / "record")
    return base


def evaluated(base: Path, out: Path | None, **changes: Any) -> EvaluationRecord:
    document = {
        "name": "brightness",
        "model": f"{base}/zoo.py:build",
        "shards": str(base / "shards"),
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.02},
        "evaluation": {"suite": "quick", **changes},
    }
    spec = ExternalModelSpec.model_validate(document)
    return evaluate_external(spec, out or base / "other")


def test_record_says_how_far_test_is_below_validation(place: Path) -> None:
    record = read_record(place / "record/record.json")
    assert record.validation is not None
    assert (record.validation.acc.count, record.validation.acc.total) == (11, 12)  # light 105 is dark
    assert (record.clean_acc.count, record.clean_acc.total) == (5, 10)
    assert record.validation.gap == pytest.approx(11 / 12 - 0.5)
    assert 0.02 < record.validation.p < 0.05
    assert record.baselines is not None
    assert record.baselines.majority_class == "dark"
    assert record.baselines.majority_acc == 0.6
    assert record.confusion == {"dark": {"dark": 2, "light": 4}, "light": {"dark": 1, "light": 3}}


def test_operating_point_is_chosen_on_validation_and_measured_on_test(place: Path) -> None:
    """On validation 104 or so is the best cut; on test images 175 would be."""
    binary = read_record(place / "record/record.json").binary
    assert binary is not None
    assert binary.chosen is not None
    assert binary.positive == "light"

    def score(value: float) -> float:
        return 1 / (1 + np.exp(-40 * (value / 255 - 0.5)))

    assert score(100) < binary.chosen.threshold < score(151)
    assert (binary.at_half.sensitivity.count, binary.at_half.sensitivity.total) == (3, 4)
    assert (binary.at_half.specificity.count, binary.at_half.specificity.total) == (2, 6)
    assert binary.chosen.sensitivity.total == 4
    best = max(point.sensitivity - point.false_positive_rate for point in binary.roc)
    chosen = binary.chosen.sensitivity.value + binary.chosen.specificity.value - 1
    assert chosen < best  # as a threshold from test images would not be


def test_mistakes_have_files_and_pictures(place: Path) -> None:
    record = read_record(place / "record/record.json")
    assert [one.path for one in record.mistakes][:2] == ["test/dark/dark5.png", "test/dark/dark4.png"]
    assert record.mistakes[0].label == "dark"
    assert record.mistakes[0].prediction == "light"
    assert [one.confidence for one in record.mistakes] == sorted(
        (one.confidence for one in record.mistakes), reverse=True
    )
    with Image.open(place / "record/mistakes.png") as picture:
        assert picture.format == "PNG"
    table = pq.read_table(place / "record/outcomes.parquet")
    shards = ShardSet.open(place / "shards")
    for row, path, label in zip(*(table[name].to_pylist() for name in ("row", "path", "label")), strict=True):
        assert path.startswith(f"test/{CLASSES[label]}/")
        assert paths_of(shards, np.array([row])) == [path]


def test_shards_without_file_names_have_none(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "shards", tmp_path / "shards")
    shards = ShardSet.open(tmp_path / "shards")
    for file in (tmp_path / "shards").glob("*.parquet"):
        table = pq.read_table(file)
        image = table["image"].combine_chunks()
        nameless = pa.StructArray.from_arrays([image.field("bytes")], names=["bytes"])
        pq.write_table(table.set_column(0, "image", nameless), file)
    assert paths_of(shards, np.arange(3)) is None


def test_verify_computes_it_again(place: Path) -> None:
    found = verify_record(place / "record/record.json", model=f"{place}/zoo.py:build", num_sampled=4)
    states = {check.name: check for check in found.checks}
    assert found.passed, found.failed
    assert states["answers"].passed
    assert states["validation"].detail == "12 images"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"confusion": {"dark": {"dark": 6}, "light": {"light": 4}}}, "confusion"),
        ({"mistakes": []}, "mistakes are 0"),
        ({"baselines.majority_acc": 0.1}, "baselines.majority_acc"),
        ({"validation.gap": 0.0}, "validation.gap"),
        ({"binary.chosen.threshold": 0.9999}, "binary.chosen"),
        ({"mistakes.0.path": "another.png"}, "mistakes.0.path"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_changed_answer_is_found(place: Path, tmp_path: Path, change: dict[str, Any], word: str) -> None:
    shutil.copytree(place / "record", tmp_path / "record")
    path = tmp_path / "record/record.json"
    document = json.loads(path.read_text())
    for dotted, value in change.items():
        *inner, last = dotted.split(".")
        part = document
        for name in inner:
            part = part[int(name)] if isinstance(part, list) else part[name]
        part[last] = value
    path.write_text(json.dumps(document))
    check = next(one for one in check_record(path) if one.name == "answers")
    assert not check.passed
    assert word in check.detail


def test_validation_that_was_made_up_is_found_by_a_deep_check(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "record", tmp_path / "record")
    path = tmp_path / "record/record.json"
    record = read_record(path)
    assert record.validation is not None
    lower = record.validation.acc.model_copy(update={"count": 5, "value": 5 / 12})
    update = {"validation": record.validation.model_copy(update={"acc": lower})}
    path.write_text(record.model_copy(update=update).model_dump_json())
    found = verify_record(path, model=f"{place}/zoo.py:build", num_sampled=4)
    assert "validation" in [check.name for check in found.failed]


def test_a_record_without_these_fields_still_loads_and_passes(place: Path, tmp_path: Path) -> None:
    """As an earlier temper wrote it: neither fields nor columns."""
    shutil.copytree(place / "record", tmp_path / "record")
    outcomes, path = tmp_path / "record/outcomes.parquet", tmp_path / "record/record.json"
    table = pq.read_table(outcomes).drop_columns(["confidence", "path"])
    outcomes.unlink()
    pq.write_table(table, outcomes)
    document = json.loads(path.read_text())
    for name in ("validation", "baselines", "confusion", "binary", "mistakes"):
        del document[name]
    document["files"]["outcomes"]["sha256"] = sha256_of(outcomes)
    path.write_text(json.dumps(document))
    assert read_record(path).mistakes == []
    assert [check for check in check_record(path) if not check.passed] == []


def test_drop_from_validation_to_test_is_said_in_red(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "zoo.py").write_text(ZOO)
    for split in ("train", "val", "test"):
        for name, value in {"dark": 40, "light": 200}.items():
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(20):
                level = 240 - value if split == "test" and index > 5 else value
                pixels = np.full((8, 8), level, np.uint8)
                pixels[0, 0], pixels[0, 1] = index, len(split)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    write_shards(tmp_path / "images", tmp_path / "shards")
    command = f"evaluate {tmp_path}/zoo.py:build --data {tmp_path}/shards --size 8 --eps 0.01"
    monkeypatch.setattr("temper.cli.show.console", Console(stderr=True, force_terminal=True))
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--set", "evaluation.suite=quick", "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert "validation accuracy" in shown.out
    assert "always answering 'dark'" in shown.out
    assert "\x1b[1;31madvice: Validation accuracy (100.0 % of 40 images) is 70.0 points above" in shown.err


def test_images_in_memory_have_no_validation(place: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(12) % 2
    model = Bright()
    record = temper.evaluate(model, (images, labels), eps=0.02, suite="quick", classes=CLASSES)
    assert record.validation is None
    assert record.binary is not None
    assert record.binary.chosen is None
    assert all(one.path is None for one in record.mistakes)


class Bright(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        logit = 20 * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-logit, logit], 1)


def test_sample_of_adversarial_images_is_not_empty_where_one_fell() -> None:
    """One image of 80 is near the boundary, and is none of those that are kept."""
    labels = np.arange(80) % 2
    images = np.where(labels == 1, 230, 20).astype(np.uint8)[:, None, None, None].repeat(3, 1)
    images = np.tile(images, (1, 1, 8, 8))
    plan = EvaluationSpec(suite="quick", chunk_size=32).plan(Threat(norm="linf", eps=0.05), 0)
    weak = int(np.setdiff1d(np.arange(80), stratified_subset(labels, NUM_KEPT, plan.seed))[-1])
    images[weak] = 130 if labels[weak] else 125
    found = evaluate_images(Bright(), images, labels, np.arange(80), classes=CLASSES, plan=plan)
    assert found.robust_acc.count == 79
    assert found.adversarial.rows.tolist() == [weak]
    difference = found.adversarial.images[0] - torch.from_numpy(images[weak]).float() / 255
    assert 0 < difference.abs().max() <= 0.05 + 1e-6
    with torch.no_grad():
        answer = int(Bright()(found.adversarial.images).argmax(1)[0])
    assert answer == found.adversarial.prediction[0] != labels[weak]


def test_cost_covers_the_attacks_of_suite_and_gates(place: Path) -> None:
    """Gates attack too, after the chunks: their seconds were in ``attacks``, but not in ``cost``."""
    labels = np.arange(40) % 2
    noise = np.random.default_rng(0).integers(0, 9, (40, 3, 8, 8), dtype=np.uint8)
    images = noise + np.where(labels == 1, 200, 40).astype(np.uint8)[:, None, None, None]
    plan = EvaluationSpec(suite="quick").plan(Threat(norm="linf", eps=0.02), 0)
    data, kept = prepare(images, labels, plan)
    model, rows = Bright(), np.arange(40)
    found = evaluate_chunks(model, data, kept, rows, plan, "cpu")
    done = conclude(model, data, rows, found, classes=CLASSES, plan=plan)
    of_gates = sum(attack.seconds for attack in done.attacks if attack.name.startswith("gate"))
    assert 0 < of_gates <= done.seconds - found.passes.seconds
    record = read_record(place / "record/record.json")
    assert record.cost.evaluate_s >= sum(attack.seconds for attack in record.attacks)


def test_a_grey_image_is_shown_without_coloured_noise() -> None:
    clean = np.full((3, 4, 4), 0.5, np.float32)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 4, 4)).astype(np.float32)
    answer = Answer("dark", 1.0)
    shown = as_seen(Example("dark", clean, clean + noise, answer, answer))
    assert np.allclose(shown, noise.mean(0), atol=1e-6)
    assert (shown == shown[:1]).all()
    coloured = clean + np.arange(3, dtype=np.float32)[:, None, None] / 10
    own = as_seen(Example("dark", coloured, coloured + noise, answer, answer))
    assert np.allclose(own, noise, atol=1e-6)
