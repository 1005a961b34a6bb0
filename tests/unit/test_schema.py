"""JSON schemas against what temper itself takes and refuses, by an independent validator."""

import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from temper.cli import main
from temper.cli.options import SchemaName
from temper.cli.schemas import build_schema, notes_of
from temper.errors import RecipeError
from temper.recipe import Recipe, ValidationSpec, build_recipe
from temper.spec import apply_overrides, read_yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "jobs/recipes").glob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    schemas = {name: build_schema(name) for name in typing.get_args(SchemaName)}
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    return {name: Draft202012Validator(schema) for name, schema in schemas.items()}


def as_yaml_1_2(value: Any) -> Any:
    """Editors read YAML 1.2, where 5e-4 is a number; PyYAML leaves it a string."""
    if isinstance(value, dict):
        return {name: as_yaml_1_2(part) for name, part in value.items()}
    if isinstance(value, list):
        return [as_yaml_1_2(part) for part in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+e-?\d+", value) else value


@pytest.mark.parametrize("path", [*RECIPES, *SPACES], ids=lambda path: path.name)
def test_what_comes_with_temper_fits(validators: dict[str, Any], path: Path) -> None:
    kind = "recipe" if path in RECIPES else "space"
    assert [one.message for one in validators[kind].iter_errors(as_yaml_1_2(read_yaml(path)))] == []


WRONG = [
    {"objctive": {"alpha": 1}},
    {"objective.alpha": -1},
    {"objective.alpha": "much"},
    {"objective.adversary.eps": "8:255"},
    {"objective.adversary.step_size": 0},
    {"objective.adversary.kind": "pdg"},
    {"schedule": {"k": 2}},
    {"model.backbone": None},
    {"evaluation.others": [{"norm": "l7", "eps": 1}]},
    {"workers.num_workers": [1, 2, 3]},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_schema_and_temper_refuse_the_same(validators: dict[str, Any], change: dict[str, Any]) -> None:
    document = apply_overrides(as_yaml_1_2(read_yaml(ROOT / "jobs/recipes/digits.yaml")), change)
    assert list(validators["recipe"].iter_errors(document))
    with pytest.raises(RecipeError):
        build_recipe(document)


def test_ratios_are_taken_where_temper_takes_them(validators: dict[str, Any]) -> None:
    ratios = {"objective.adversary.eps": "8/255", "objective.adversary.step_size": "2 / 255"}
    changes = {**ratios, "evaluation.curve": ["1/255", 0.1]}
    document = apply_overrides(as_yaml_1_2(read_yaml(ROOT / "jobs/recipes/digits.yaml")), changes)
    assert list(validators["recipe"].iter_errors(document)) == []
    assert build_recipe(document).evaluation.curve == pytest.approx((1 / 255, 0.1))


def test_a_resolved_recipe_and_a_record_fit(validators: dict[str, Any], evaluated_run: Path) -> None:
    resolved = as_yaml_1_2(read_yaml(evaluated_run / "recipe.yaml"))
    assert list(validators["recipe"].iter_errors(resolved)) == []
    record = json.loads((evaluated_run / "record.json").read_text(encoding="utf-8"))
    assert list(validators["record"].iter_errors(record)) == []


def test_fields_carry_the_notes_that_stand_under_them_in_the_code(validators: dict[str, Any]) -> None:
    properties = validators["recipe"].schema["$defs"]["ValidationSpec"]["properties"]
    assert properties["steps"]["description"] == "Steps of PGD; 0 skips robust accuracy."
    assert notes_of(ValidationSpec)["steps"] == properties["steps"]["description"]
    assert notes_of(Recipe) == {"epochs": "Passes over the target images."}
    # Inherited ones too.
    pgd = validators["recipe"].schema["$defs"]["PGDTraining"]["properties"]
    assert pgd["tasks"]["description"] == "Which tasks are trained under attack."


def test_the_command_prints_it_and_writes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, validators: dict[str, Any]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["schema", "suite"])
    assert not end.value.code
    assert json.loads(capsys.readouterr().out) == validators["suite"].schema
    with pytest.raises(SystemExit):
        main(["schema", "space", "--out", str(tmp_path / "space.json")])
    assert json.loads((tmp_path / "space.json").read_text(encoding="utf-8")) == validators["space"].schema
