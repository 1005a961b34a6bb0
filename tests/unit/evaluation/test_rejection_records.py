"""Rejection in records: verified again, and refused before the attacks where the model has no answer."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from temper.cluster.evaluate import evaluate_run
from temper.data import Images, ImageView
from temper.errors import ModelError
from temper.evaluation import EvaluationSpec
from temper.evaluation.rejection import Unlike
from temper.records import Calibration, DataRecord
from temper.run.material import Material
from temper.run.rejection import attacked_images, calibrate
from temper.run.target import Claim, EvaluationTarget
from temper.run.verify import verify_record
from temper.run.verify.load import reopen
from temper.run.verify.rejection import check_rejection
from temper.spec import Threat
from temper.verification import Check, read_evidence
from temper.verification.rejection import check_rejection as check_in_record

DATA = DataRecord(
    name="x", fingerprint="0" * 16, classes=["a", "b", "c"], split="test", num_images=4, image_size=8
)
CLAIM = Claim(name="x", seed=0, recipe={}, data=DATA, threat=Threat(eps=0.1))
FEW = {"evaluation.max_images": 32}


def test_its_figures_are_verified(evaluated_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    evaluate_run(evaluated_run, {"evaluation.rejection": True, **FEW}, out=out)
    found = verify_record(out, num_sampled=8)
    assert found.passed, found.failed
    assert {"rejection", "rejection again"} <= {check.name for check in found.checks}
    document = json.loads((out / "record.json").read_text())
    for path, shallow in (
        ("calibration.temperature", False),
        ("calibration.checkpoint", True),
        ("calibration.min_confidence", False),
        ("ece", False),
        ("aurc", False),
        ("curve.6.risk", True),
        ("detections.0.auroc.energy", False),
        ("detections.1.auroc.squeezing", False),
        ("detections.1.num_images", True),
    ):
        *parents, leaf = [int(part) if part.isdigit() else part for part in path.split(".")]
        lying = copy.deepcopy(document)
        place = lying["rejection"]
        for name in parents:
            place = place[name]
        value = place[leaf]
        place[leaf] = "1" * 64 if isinstance(value, str) else value + 1 if value >= 1 else abs(value - 0.2)
        (out / "lying.json").write_text(json.dumps(lying))
        evidence = read_evidence(out / "lying.json")
        assert check_in_record(evidence).passed != shallow, path
        found = reopen(evidence, None)
        assert not isinstance(found, str)
        again = check_rejection(evidence, found[0], torch.zeros(32, 5))
        assert isinstance(again, Check)
        assert f"rejection.{'.'.join(path.split('.')[:2])}" in again.detail, path


class Blank(nn.Module):
    """No finite answer to a dark image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((2, 3))
        return torch.where(means < 0.2, torch.nan, 20 * means)


def test_a_model_without_finite_answers_is_told_before_the_attacks() -> None:
    bright, dark = (np.full((4, 3, 8, 8), level, np.uint8) for level in (200, 10))
    labels, rows = np.arange(4) % 3, np.arange(4)
    device, settings = torch.device("cpu"), EvaluationSpec()

    def calibrated(val: np.ndarray, test: np.ndarray, unlike: np.ndarray) -> Calibration | None:
        others = [Unlike("out of distribution", "elsewhere", unlike)]
        material = Material(0.9, Images(val, labels, rows), others, 2)
        target = EvaluationTarget(Blank(), Images(test, labels, rows), device, CLAIM, settings, ImageView(8))
        return calibrate(target, material)

    assert calibrated(bright, bright, bright) is not None
    for name, images in (
        ("validation", (dark, bright, bright)),
        ("test", (bright, dark, bright)),
        ("elsewhere", (bright, bright, dark)),
    ):
        with pytest.raises(ModelError, match=f"not finite.*images of '{name}', before any attack"):
            calibrated(*images)


def test_attacked_images_without_a_finite_answer_have_no_score() -> None:
    images, predictions = torch.zeros(3, 3, 8, 8), np.array([1, -1, 0])
    (attacked,) = attacked_images(Threat(eps=0.1), images, predictions)
    assert len(attacked.images) == 2
    assert attacked_images(Threat(eps=0.1), images[:1], np.array([-1])) == []
