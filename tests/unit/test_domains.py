"""The recipes of three domains and of their starts, and a run against patches, from training to the board."""

from pathlib import Path
from typing import Any

import pytest

from temper.attacks import PatchPGD
from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.leaderboard import build_leaderboard
from temper.leaderboard.describe import describe_adversary
from temper.recipe import load_recipe
from temper.records import read_record
from temper.search import build_trials, load_space
from temper.search.trials import baseline_trial, check_space
from temper.spec import read_yaml
from temper.training.validation import attack_of
from temper.verification import check_record

ROOT = Path(__file__).parents[2]
DOMAINS = {"medical": "xray", "manufacturing": "lighting", "traffic": "weather"}
STARTS = {"clothing": "lighting", "objects": "common"}
CORRUPTIONS = DOMAINS | STARTS
SPACES = {"medical": "small_eps", "manufacturing": "small_eps", "traffic": "patch"}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_domain_has_a_threat_model_that_it_explains(name: str) -> None:
    path = ROOT / f"jobs/recipes/{name}.yaml"
    recipe = load_recipe(path)
    plan = recipe.evaluation.plan(recipe.threat, recipe.seed)
    assert plan.corruptions == (CORRUPTIONS[name],)
    assert len(plan.others) == 1
    assert recipe.objective.adversary is not None
    assert recipe.objective.adversary.norm == recipe.threat.norm
    assert recipe.objective.adversary.eps >= recipe.threat.eps
    text = path.read_text(encoding="utf-8")
    for said in ("Threat model:", "expected:", CORRUPTIONS[name], "temper shards"):
        assert said in text


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("is_factorial", [False, True])
def test_a_domain_has_spaces_around_its_recipe(name: str, is_factorial: bool) -> None:
    path = ROOT / f"search_spaces/{name if is_factorial else SPACES[name]}.yaml"
    space, document = load_space(path), read_yaml(ROOT / f"jobs/recipes/{name}.yaml")
    assert len(build_trials(space, document, "space")) >= (8 if is_factorial else 4)
    assert baseline_trial(space, document, "space") is not None
    assert check_space(space, document, "space")


@pytest.mark.parametrize(("start", "target"), [("clothing", "manufacturing"), ("objects", "medical")])
def test_a_domain_can_start_from_a_hardened_source_model(start: str, target: str) -> None:
    source = load_recipe(ROOT / f"jobs/recipes/{start}.yaml")
    changes = {"pretrain": None, "model.backbone": "resnet8", "model.weights": f"runs/{start}"}
    recipe = load_recipe(ROOT / f"jobs/recipes/{target}.yaml", changes)
    assert recipe.model.backbone == source.model.backbone
    assert recipe.data.source == source.data.target
    assert source.threat.eps >= recipe.threat.eps


def test_epochs_are_compared_under_patches_where_they_are_the_threat(tiny_recipe: Any) -> None:
    recipe = tiny_recipe(threat={"norm": "patch", "eps": 0.1}, validation__steps=3)
    assert attack_of(recipe) == PatchPGD(eps=0.1, steps=3)
    assert attack_of(tiny_recipe()).norm == "linf"


def test_a_run_against_patches_is_trained_evaluated_and_ranked(tiny_recipe: Any, tmp_path: Path) -> None:
    changes = {
        "threat": {"norm": "patch", "eps": 0.1},
        "objective__adversary": {"kind": "patch", "eps": 0.1, "steps": 2},
        "epochs": 1,
        "evaluation__others": [{"norm": "linf", "eps": 0.02}],
        "evaluation__corruptions": ["weather"],
        "evaluation__max_images": 16,
    }
    launch(tiny_recipe(**changes), tmp_path / "runs/stickers")
    evaluate_run(tmp_path / "runs/stickers")
    record = read_record(tmp_path / "runs/stickers/record.json")
    assert record.threat.label == "Patch 0.1"
    assert record.suite.name == "quick-patch"
    assert record.robust_acc.value < record.clean_acc.value
    assert {"planted adversarial", "more steps", "black box"} <= {gate.name for gate in record.gates}
    assert [other.threat.label for other in record.others] == ["Linf 0.02"]
    assert [group.group for group in record.corruptions] == ["weather"]
    assert [
        check.detail for check in check_record(tmp_path / "runs/stickers/record.json") if not check.passed
    ] == []
    summary = build_leaderboard([tmp_path / "runs"], tmp_path / "out")
    (board,) = summary.boards
    assert board.threat.label == "Patch 0.1"
    listed = [*board.entries, *board.blocked]
    assert [entry.name for entry in listed] == ["tiny"]
    assert "Patch 0.1" in (tmp_path / "out/index.html").read_text(encoding="utf-8")


def test_the_board_says_patch_once() -> None:
    adversary = PatchPGD(eps=0.05).model_dump()
    assert describe_adversary(adversary) == "patch 0.05"
    assert describe_adversary({"kind": "pgd", "norm": "l2", "eps": 0.5}) == "pgd l2 0.5"
