"""Runs on grey images with a grey threat model: trained, evaluated, verified, and ranked on their own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from temper.cli import main
from temper.cluster.datasets import build_train_data, decode_splits
from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.data import ShardSet
from temper.errors import RecipeError
from temper.leaderboard import build_leaderboard
from temper.models import build_model, set_trainable
from temper.records import read_saved_images
from temper.run.open_data import open_data
from temper.run.test_sets import advice_on_channels
from temper.run.verify import verify_record
from temper.spec import Threat
from temper.training import Worker, plan_phases
from temper.training.data import paired_batches
from temper.training.free import FreeStep
from temper.training.plan import Moment
from temper.training.step import TrainStep

EVERYTHING = {
    "evaluation.curve": [0.05],
    "evaluation.others": [{"norm": "l2", "eps": 0.4}],
    "evaluation.minimum_norms": True,
    "evaluation.corruptions": ["medical"],
}


def is_grey(images: torch.Tensor) -> bool:
    return torch.equal(images, images[:, :1].expand_as(images))


def test_a_grey_run_from_training_to_the_board(tiny_recipe: Any, evaluated_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "boards/grey"
    launch(tiny_recipe(threat__channels="grey"), run)
    record = evaluate_run(run, EVERYTHING)
    assert record.threat.label == "Linf 0.1 grey"
    assert [other.threat.label for other in record.others] == ["L2 0.4 grey"]
    assert json.loads((run / "record.json").read_text())["threat"]["channels"] == "grey"
    assert not [gate for gate in record.gates if not gate.passed]
    saved = read_saved_images(run / "adversarial.safetensors")
    assert saved.threat == record.threat
    assert len(saved.images)
    assert is_grey(torch.from_numpy(saved.images))
    assert [check for check in verify_record(run).checks if not check.passed] == []

    shutil.copytree(evaluated_run, tmp_path / "boards/colour")
    assert "channels" not in json.loads((evaluated_run / "record.json").read_text())["threat"]
    summary = build_leaderboard([tmp_path / "boards"], tmp_path / "out")
    assert {board.threat.label: len(board.entries) for board in summary.boards} == {
        "Linf 0.1": 1,
        "Linf 0.1 grey": 1,
    }


@pytest.mark.parametrize(
    "adversary",
    [
        {"kind": "pgd", "eps": 0.1, "steps": 2},
        {"kind": "trades", "norm": "l2", "eps": 0.5, "steps": 2},
        {"kind": "fast", "eps": 0.1},
        {"kind": "patch", "eps": 0.1, "steps": 2},
        {"kind": "free", "eps": 0.1, "replays": 2},
    ],
    ids=lambda adversary: adversary["kind"],
)
@pytest.mark.parametrize("channels", ["grey", "colour"])
def test_training_steps_see_grey_images(adversary: dict[str, Any], channels: str, tiny_recipe: Any) -> None:
    """What goes through the network in training mode; in colour, attacked images are no longer grey."""
    recipe = tiny_recipe(threat__channels=channels, objective__adversary=adversary, objective__alpha=0.0)
    data = open_data(recipe)
    feed = build_train_data(recipe, data, decode_splits(recipe, data, with_ray=False))
    model = build_model(recipe.model, feed.classes, image_size=8, seed=0)
    (plan,) = plan_phases(recipe, model)
    optimizer = recipe.optim.build(set_trainable(model, plan.phase.trainable, tasks=("target",)))
    kind = FreeStep if adversary["kind"] == "free" else TrainStep
    step = kind(recipe, feed, plan, model, optimizer, Worker("cpu"))
    seen: list[torch.Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    step(next(iter(paired_batches(feed, 0, False))), Moment(0, 0, 0.0))
    std = model.std.view(1, 3, 1, 1) if hasattr(model, "std") else 1
    mean = model.mean.view(1, 3, 1, 1) if hasattr(model, "mean") else 0
    grey = [torch.allclose(one, one[:, :1], atol=1e-5) for one in (images * std + mean for images in seen)]
    assert len(grey) > 1
    assert all(grey) == (channels == "grey")


def test_shards_with_colour_are_refused(tiny_recipe: Any, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(tiny_recipe().data.target, shards)
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps({**manifest, "channels": 3}))
    assert ShardSet.open(shards).manifest.channels == 3
    with pytest.raises(RecipeError, match=r"channels: grey is for grey images, but some of .* have colour"):
        open_data(tiny_recipe(threat__channels="grey", data__target=str(shards)))


def test_a_further_test_set_with_colour_is_refused_before_the_training(
    tiny_recipe: Any, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(tiny_recipe().data.target, shards)
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps({**manifest, "channels": 3}))
    tests = {"b": str(shards)}
    with pytest.raises(RecipeError, match=r"grey is for grey images, but some of data\.tests\.b have colour"):
        open_data(tiny_recipe(threat__channels="grey", data__tests=tests))
    assert open_data(tiny_recipe(data__tests=tests)).tests["b"].manifest.channels == 3


@pytest.mark.parametrize(
    ("overrides", "is_advised"),
    [
        ([], True),
        (["threat.channels=grey"], False),
        (["threat={norm: patch, eps: 0.1}", "objective.adversary=null"], True),
    ],
)
def test_plan_advises_where_grey_images_are_attacked_in_colour(
    overrides: list[str], is_advised: bool, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [f"{name}={value}" for name, value in tiny.items()]
    words = [word for change in changes + overrides for word in ("--set", change)]
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "jobs/recipes/tiny.yaml", *words])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("advice: ")]
    assert len(said) == is_advised
    assert all(line.endswith("--set threat.channels=grey") for line in said)


def test_evaluate_advises_where_grey_images_were_attacked_in_colour(
    evaluated_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what it advises works."""
    few = ("--set", "evaluation.max_images=20")
    for name, grey in (("colour", ()), ("grey", ("--set", "threat.channels=grey"))):
        with pytest.raises(SystemExit, match="0"):
            main(["evaluate", str(evaluated_run), *few, *grey, "--out", str(tmp_path / name)])
        assert ("advice: the images are grey" in capsys.readouterr().err) == (name == "colour")
        assert json.loads((tmp_path / name / "record.json").read_text())["threat"].get("channels") == (
            "grey" if name == "grey" else None
        )


def test_no_advice_without_images_to_look_at_or_for_changes_that_keep_grey(
    digits: dict[str, Path], tmp_path: Path
) -> None:
    target = digits["target"]
    assert advice_on_channels(Threat(norm="l0", eps=3), target) is not None
    assert advice_on_channels(Threat(norm="semantic", eps=0.5), target) is None
    assert advice_on_channels(Threat(norm="linf", eps=0.1), tmp_path / "elsewhere") is None


def test_a_recipe_that_says_nothing_keeps_its_hash(tiny_recipe: Any) -> None:
    plain, colour = tiny_recipe(), tiny_recipe(threat__channels="colour")
    assert plain.hash == colour.hash
    assert "channels" not in plain.resolved()["threat"]
    assert tiny_recipe(threat__channels="grey").hash != plain.hash
