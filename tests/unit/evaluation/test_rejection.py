"""Rejection: the temperature, the thresholds and the numbers, against references of their own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from scipy.optimize import minimize_scalar
from torch import nn

from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.deployment import Classifier
from temper.errors import DataError, ModelError, RecipeError
from temper.evaluation.rejection import (
    Scores,
    Unlike,
    calibrate_model,
    fit_temperature,
    judge_scores,
    measure_rejection,
    score_images,
)
from temper.evaluation.rejection.calibrate import HIGHEST, LOWEST
from temper.evaluation.rejection.measure import risk_by_coverage
from temper.evaluation.rejection.scores import median_smooth, reduce_depth
from temper.leaderboard import build_leaderboard
from temper.records import hash_of_recipe, read_record

DIGEST = "0" * 64


def some_logits(scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(300, 5, generator=generator, dtype=torch.float64)
    labels = torch.distributions.Categorical(logits=2 * logits).probs.multinomial(1, generator=generator)
    return scale * logits, labels[:, 0]


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_temperature_is_the_one_that_scipy_finds(scale: float) -> None:
    logits, labels = some_logits(scale)

    def loss(log_temperature: float) -> float:
        return float(nn.functional.cross_entropy(logits / np.exp(log_temperature), labels))

    best = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(best.x), rel=1e-3)


def test_logits_times_a_factor_have_a_temperature_times_that_factor() -> None:
    logits, labels = some_logits(1.0)
    assert fit_temperature(7 * logits, labels) == pytest.approx(7 * fit_temperature(logits, labels), rel=1e-9)


def test_a_model_that_is_never_wrong_gets_the_lowest_temperature_and_one_that_always_is_the_highest() -> None:
    logits = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    right = torch.arange(3).repeat(4)
    assert fit_temperature(logits, right) == pytest.approx(LOWEST)
    assert fit_temperature(logits, (right + 1) % 3) == pytest.approx(HIGHEST)


def test_squeezers_are_those_of_the_paper() -> None:
    images = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    by_scipy = median_filter(images.numpy(), size=(1, 1, 2, 2), mode="nearest")
    assert np.array_equal(median_smooth(images).numpy(), by_scipy)
    reduced = reduce_depth(images)
    assert len(reduced.unique()) <= 32
    assert (reduced - images).abs().max() <= 0.5 / 31 + 1e-6


class Mean(nn.Module):
    """Logits from the mean of each channel, times a factor."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * images.mean((2, 3))


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def test_scores_are_those_of_their_formulas_whatever_the_batch() -> None:
    images = pixels(11, 0)
    whole, parts = (score_images(Mean(), images, batch_size=size) for size in (11, 4))
    logits = 20 * (images / 255).mean((2, 3))
    assert whole.logits.numpy() == pytest.approx(logits, abs=1e-4)
    assert whole.energy.numpy() == pytest.approx(-np.log(np.exp(logits).sum(1)), abs=1e-4)
    shares = np.exp(logits / 3)
    assert whole.confidence(3.0).numpy() == pytest.approx(
        (shares / shares.sum(1, keepdims=True)).max(1), abs=1e-4
    )
    assert torch.allclose(whole.squeezing, parts.squeezing, atol=1e-6)
    assert ((whole.squeezing >= 0) & (whole.squeezing <= 2)).all()
    floats = score_images(Mean(), torch.from_numpy(images).float() / 255)
    assert torch.equal(floats.squeezing, whole.squeezing)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("count", [1, 2, 19, 200])
def test_each_threshold_lets_its_share_of_the_validation_images_pass(coverage: float, count: int) -> None:
    images, labels = pixels(count, 1), np.arange(count) % 3
    calibration = calibrate_model(Mean(), images, labels, checkpoint=DIGEST, coverage=coverage)
    scores = score_images(Mean(), images)
    for name, flags in judge_scores(scores, calibration).items():
        values = scores.suspicion(calibration.temperature)[name]
        assert int((~flags).sum()) >= coverage * count - 1e-9
        assert int((values < values[~flags].max()).sum()) < coverage * count  # no higher than it must be
    assert calibration.num_images == count


def test_risk_by_coverage_counts_the_wrong_among_the_surest() -> None:
    confidence = torch.tensor([0.9, 0.5, 0.8, 0.7])
    right = torch.tensor([True, False, True, False])
    assert risk_by_coverage(confidence, right).tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    same = torch.full((4,), 0.6)
    assert risk_by_coverage(same, right).tolist() == pytest.approx([0.5] * 4)  # no order to profit from


def test_what_is_measured_is_what_was_found_by_hand() -> None:
    images, labels = pixels(60, 2), np.arange(60) % 3
    calibration = calibrate_model(Mean(), images[:30], labels[:30], checkpoint=DIGEST, coverage=0.8)
    dark = Unlike("out of distribution", "dark", pixels(25, 3) // 40)
    bright = Unlike("adversarial", "linf 1/255", torch.from_numpy(pixels(20, 4)).float() / 255)
    worst = torch.tensor(np.eye(3)[(labels + 1) % 3] * 30).float()
    record = measure_rejection(Mean(), images, labels, worst, [dark, bright], calibration)
    scores = score_images(Mean(), images)
    right = scores.logits.argmax(1).numpy() == labels
    confidence = scores.confidence(calibration.temperature).numpy()
    accepted = confidence >= calibration.min_confidence
    assert record.accepted == accepted.mean()
    assert record.accepted_acc == right[accepted].mean()
    assert record.curve[-1].risk == pytest.approx(1 - right.mean())
    assert [point.coverage for point in record.curve][-1] == 1
    pairs = [(one, other) for one in confidence[right] for other in confidence[~right]]
    by_hand = np.mean([(one > other) + 0.5 * (one == other) for one, other in pairs])
    assert record.auroc_errors == pytest.approx(by_hand)
    theirs = score_images(Mean(), dark.images).energy.numpy()
    own = scores.energy.numpy()
    by_hand = np.mean([(one > other) + 0.5 * (one == other) for one in theirs for other in own])
    assert record.detections[0].auroc["energy"] == pytest.approx(by_hand)
    assert record.detections[0].flagged["energy"] == (theirs > calibration.max_energy).mean()
    assert record.auroc_of("out of distribution", "energy") == record.detections[0].auroc["energy"]
    assert record.auroc_of("adversarial", "nothing") is None
    # Under attack every answer is wrong here, and as sure as can be.
    assert record.under_attack.accepted == record.under_attack.accepted_and_wrong == 1


def test_images_of_one_kind_are_not_told_apart() -> None:
    images, labels = pixels(40, 5), np.arange(40) % 3
    calibration = calibrate_model(Mean(), images, labels, checkpoint=DIGEST, coverage=0.9)
    worst = score_images(Mean(), images).logits
    same = Unlike("out of distribution", "same", images)
    record = measure_rejection(Mean(), images, labels, worst, [same], calibration)
    assert record.detections[0].auroc == pytest.approx(
        dict.fromkeys(("confidence", "energy", "squeezing"), 0.5)
    )


def test_nothing_is_made_of_nothing() -> None:
    with pytest.raises(DataError, match="no validation images"):
        calibrate_model(Mean(), pixels(0, 0), np.arange(0), checkpoint=DIGEST, coverage=0.9)
    with pytest.raises(ModelError, match="not finite"):
        score_images(lambda images: images.mean((2, 3)) / 0, pixels(2, 0) * 0)
    assert Scores(torch.zeros(2, 3), torch.zeros(2)).energy.tolist() == pytest.approx([-np.log(3)] * 2)


FEW = {"evaluation.max_images": 32}


def test_a_recipe_asks_for_it_and_the_board_shows_it(evaluated_run: Path, tmp_path: Path) -> None:
    record = evaluate_run(evaluated_run, {"evaluation.rejection": True}, out=tmp_path / "run")
    measured = record.rejection
    assert measured is not None
    assert read_record(tmp_path / "run/record.json") == record
    assert [one.kind for one in measured.detections] == ["out of distribution", "adversarial"]
    assert record.source is not None
    assert measured.detections[0].name == record.source.name
    assert measured.detections[0].num_images == record.source.num_images
    plain = read_record(evaluated_run / "record.json")
    assert plain.rejection is None
    assert (plain.clean_acc, plain.robust_acc) == (record.clean_acc, record.robust_acc)
    assert measured.curve[-1].risk == pytest.approx(1 - record.clean_acc.value)
    assert Classifier.open(tmp_path / "run/record.json").calibration == measured.calibration
    out = tmp_path / "board"
    (board,) = build_leaderboard([tmp_path / "run", evaluated_run], out).boards
    entries = {entry.path.split("/")[-2]: entry for entry in (*board.entries, *board.blocked)}
    assert entries["tiny"].aurc is None
    assert entries["run"].aurc == measured.aurc
    assert entries["run"].ood_auroc == measured.auroc_of("out of distribution", "energy")
    assert entries["run"].adversarial_auroc == measured.auroc_of("adversarial", "squeezing")
    card = (out / "models" / f"{entries['run'].slug}.html").read_text()
    assert "When not to trust it" in card
    assert "When not to trust it" not in (out / "models" / f"{entries['tiny'].slug}.html").read_text()


def test_a_folder_of_images_that_is_none_is_told_before_the_attacks(tiny_recipe: Any, tmp_path: Path) -> None:
    launch(tiny_recipe(epochs=1, validation__max_images=8, data__shots_per_class=8), tmp_path / "run")
    (tmp_path / "others").mkdir()
    asked = {"evaluation.rejection": {"ood": str(tmp_path / "others")}, **FEW}
    with pytest.raises(DataError, match=r"evaluation.rejection.ood: no images found"):
        evaluate_run(tmp_path / "run", asked)
    (tmp_path / "others/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"evaluation.rejection.ood: .*a.png: not an image of a known format"):
        evaluate_run(tmp_path / "run", asked)
    assert not (tmp_path / "run/evaluation").exists()


def test_older_recipes_keep_their_hash_and_older_records_are_read(
    tiny_recipe: Any, evaluated_run: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe()
    older = recipe.resolved()
    assert older["evaluation"].pop("rejection") is None
    assert hash_of_recipe(older) == recipe.hash
    assert tiny_recipe(evaluation__rejection=False).hash == recipe.hash
    assert tiny_recipe(evaluation__rejection=True).hash != recipe.hash
    with pytest.raises(
        RecipeError, match=r"no field 'evaluation.rejection.covrage' \(did you mean 'coverage'"
    ):
        tiny_recipe(evaluation__rejection={"covrage": 0.5})
    document = json.loads((evaluated_run / "record.json").read_text())
    del document["rejection"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    assert read_record(tmp_path / "record.json").rejection is None
