from pathlib import Path
from typing import Any

import pytest

from temper.errors import RecipeError
from temper.recipe import build_recipe, load_recipe
from temper.spec import Threat, apply_overrides, content_hash, format_ratio, parse_assignments

ROOT = Path(__file__).parents[2]
TINY = ROOT / "jobs/recipes/tiny.yaml"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"objectve.alpha": 1}, r"tiny.yaml: no field 'objectve' \(did you mean 'objective'\?\)"),
        ({"objective.alhpa": 1}, r"no field 'objective.alhpa' \(did you mean 'alpha'\?\). Fields of 'objec"),
        ({"objective.adversary.eps": 8}, r"eps is in pixel units .* got 8; did you mean 8/255\?"),
        ({"threat.eps": 8}, r"'threat': eps is in pixel units of \[0,1\], so for linf it lies in 0..1"),
        ({"threat.eps": "1" * 400 + "/1"}, r"'threat.eps': expected a number or a ratio such as 8/255"),
        ({"threat.eps": "8/0"}, r"'threat.eps': expected a number or a ratio such as 8/255, got '8/0'"),
        ({"model.backbone": "resnet9"}, r"'resnet9' \(did you mean 'resnet8'.*Backbones: .*vit_b_16"),
        ({"compute.compile": "maybe"}, r"'compute.compile': .* boolean.* or: .*'auto', got 'maybe'$"),
        ({"optim.lr": "quick"}, r"tiny.yaml: 'optim.lr': .* a number or: .*'auto', got 'quick'$"),
        ({"schedule.kind": "gradul"}, r"'schedule': no kind 'gradul'. Kinds: .*gradual.*lp_ft"),
        ({"validation.metric": "test/target/robust_acc"}, r"'validation.metric'.*val/target/robust_acc"),
        ({"data.source": None}, r"objective.alpha > 0 needs data.source"),
        ({"objective.alpha": -1}, r"'objective.alpha': .*greater than or equal to 0"),
        ({"epochs.x": 1}, r"epochs.x: epochs is a value and has no fields"),
        ({"pretrain": {"epochs": 1}, "model.weights": "w.pt"}, r"two starts: keep one"),
    ],
)
def test_wrong_fields_are_named_with_what_is_allowed(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(TINY, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("a: [1", "line 1.*not valid YAML|not valid YAML"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_unreadable_recipes(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_its_resolved_form_is_itself(path: Path) -> None:
    recipe = load_recipe(path)
    again = build_recipe(recipe.resolved())
    assert again == recipe
    assert again.hash == recipe.hash


def test_hash_ignores_name_and_tracking_only() -> None:
    recipe = load_recipe(TINY)
    assert load_recipe(TINY, {"name": "x", "tracking.wandb": True}).hash == recipe.hash
    assert load_recipe(TINY, {"objective.alpha": 0.31}).hash != recipe.hash


def test_ratio_scientific_and_assignments() -> None:
    overrides = parse_assignments(["threat.eps=4/255", "optim.lr=3e-4", "schedule={kind: last_k, k: 2}"])
    recipe = load_recipe(TINY, overrides)
    assert recipe.threat.eps == pytest.approx(4 / 255)
    assert recipe.optim.lr == pytest.approx(3e-4)
    assert recipe.schedule.label == "last_k(2)"
    with pytest.raises(RecipeError, match=r"expected dotted\.path=value"):
        parse_assignments(["alpha"])


def test_new_kind_replaces_the_node_whatever_the_order() -> None:
    document = {"schedule": {"kind": "gradual", "epochs_per_group": 3}}
    for overrides in (
        {"schedule.k": 2, "schedule.kind": "last_k"},
        {"schedule.kind": "last_k", "schedule.k": 2},
    ):
        assert apply_overrides(document, overrides) == {"schedule": {"kind": "last_k", "k": 2}}
    assert document["schedule"]["epochs_per_group"] == 3


def test_format_ratio_and_threat_label() -> None:
    assert format_ratio(8 / 255) == "8/255"
    assert format_ratio(1 / 510) == "1/510"
    assert format_ratio(0.5) == "0.5"
    assert Threat(norm="l2", eps=0.5).label == "L2 0.5"


def test_content_hash_does_not_depend_on_order() -> None:
    assert (
        content_hash({"a": 1, "b": [2]})
        == content_hash({"b": [2], "a": 1})
        != content_hash({"a": 1, "b": [3]})
    )
