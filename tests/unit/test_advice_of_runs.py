"""Advice on runs that were trained and evaluated: in records, at the end of a command, and on a card."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import temper
from temper.cli import main
from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.leaderboard import build_leaderboard
from temper.records import AdviceRecord, read_record


def test_a_short_run_is_told_to_train_longer(evaluated_run: Path) -> None:
    (found,) = (one for one in read_record(evaluated_run / "record.json").advice)
    lines = (evaluated_run / "metrics.jsonl").read_text().splitlines()
    before, after = (json.loads(line)["train/target/loss"] for line in lines)
    assert found.kind == "loss_still_falling"
    assert found.values == {
        "before": before,
        "after": after,
        "fall": (before - after) / before,
        "epochs": 2.0,
    }
    assert found.text.endswith("and epoch 2 was the best. Train longer.")
    assert found.option == "--set epochs=4"


def test_a_command_ends_with_it(
    evaluated_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(evaluated_run), "--out", str(tmp_path / "again"), "--json"])
    assert not end.value.code
    shown = capsys.readouterr()
    assert "\nadvice: The training loss was still falling, by " in shown.err
    assert "Train longer. --set epochs=4\n" in shown.err
    assert json.loads(shown.out)["advice"][0]["option"] == "--set epochs=4"


def test_without_a_log_nothing_is_said_of_the_training(evaluated_run: Path, tmp_path: Path) -> None:
    """A log that lacks the epoch before the last, or is cut short, is no reason to guess, nor to fail."""
    for place, content in {
        "cut": '{"epoch": 0, "train/lo',
        "gap": '{"epoch": 2, "train/loss": 0.1, "first_epoch": 1}\n',
        "gap of an earlier version": '{"epoch": 1, "train/loss": 0.1}\n',
    }.items():
        run = tmp_path / place
        for part in ("checkpoint", "recipe.yaml"):
            (run / part).parent.mkdir(exist_ok=True)
            (run / part).symlink_to(evaluated_run / part)
        (run / "metrics.jsonl").write_text(content)
        assert evaluate_run(run).advice == []


def test_a_hardened_run_beside_its_plain_one(
    tiny_recipe: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Trained within an eps of next to nothing, it is as robust as the plain one."""
    plain, hardened = tmp_path / "plain", tmp_path / "hardened"
    few = {"evaluation__max_images": 32}
    launch(tiny_recipe(**few, objective__adversary=None), plain)
    evaluate_run(plain)
    launch(tiny_recipe(**few, objective__adversary__eps=1e-4), hardened)
    siblings = {"evaluation.siblings": [str(plain)]}
    record = evaluate_run(hardened, siblings, out=tmp_path / "beside")
    found = {one.kind: one for one in record.advice}
    assert found["hardened_near_plain"].values["plain_robust_balanced_acc"] == pytest.approx(
        read_record(plain / "record.json").robust_balanced_acc
    )
    (plain / "record.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        record = evaluate_run(hardened, siblings, out=tmp_path / "broken")
    assert "hardened_near_plain" not in {one.kind for one in record.advice}
    assert f"no advice beside the sibling {plain}" in caplog.text


def test_a_run_below_its_probe(tiny_recipe: Any, tmp_path: Path) -> None:
    """Its rate is far too small, so that it stays close to its start: the probe has learned more."""
    recipe = {"optim__lr": 1e-5, "objective__adversary": None, "epochs": 3, "data__batch_size": 16}
    launch(tiny_recipe(**recipe, evaluation__max_images=None), tmp_path)
    record = evaluate_run(tmp_path)
    found = {one.kind: one for one in record.advice}
    adaptability = record.promises.adaptability
    assert adaptability is not None
    assert found["worse_than_probe"].values["gain"] == adaptability.gain < -0.2
    assert found["worse_than_probe"].values["p"] < 0.001
    assert found["worse_than_probe"].option == "--set optim.lr=auto"
    assert "Measure the learning rate on these images." in found["worse_than_probe"].text


class Constant(torch.nn.Module):
    """Every image is of class 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.tensor([0.0, 1.0, 0.0])


def test_a_model_from_elsewhere_that_always_says_the_same() -> None:
    images = np.random.default_rng(0).integers(1, 256, (60, 3, 8, 8)).astype(np.uint8)
    labels = np.repeat([0, 1, 2], [20, 30, 10])
    record = temper.evaluate(Constant(), (images, labels), eps=0.01, classes=["a", "b", "c"], use_gpu=False)
    found = {one.kind: one for one in record.advice}
    assert found["worse_than_majority"].option is None
    assert (
        "50.0 % of the test images are right, and always answering 'b' gets 50.0 %"
        in found["worse_than_majority"].text
    )


EVIL = "<script>alert('x')</script>{{7*7}} \u202e &"


def test_a_card_shows_it_and_escapes_it(evaluated_run: Path, tmp_path: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    own = AdviceRecord(kind="few_images", text=EVIL, option="--set a=<b>", values={"num_test": 3})
    changes: dict[str, list[AdviceRecord]] = {"told": [own], "silent": []}
    for name, advice in changes.items():
        (tmp_path / name).mkdir()
        changed = record.model_copy(update={"name": name, "advice": advice})
        (tmp_path / name / "record.json").write_text(changed.model_dump_json())
    build_leaderboard(sorted(tmp_path.iterdir()), tmp_path / "out")
    told, silent = (next((tmp_path / "out/models").glob(f"{name}-*")).read_text() for name in changes)
    assert '<h2 id="advice">Advice</h2>' in told
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;{{7*7}}" in told
    assert "--set a=&lt;b&gt;" in told
    assert "<script>alert" not in told
    assert 'id="advice"' not in silent


def test_a_record_of_before_has_none(evaluated_run: Path, tmp_path: Path) -> None:
    document = json.loads((evaluated_run / "record.json").read_text())
    del document["advice"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    assert read_record(tmp_path / "record.json").advice == []
