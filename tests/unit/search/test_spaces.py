"""Search spaces: what they draw, what they refuse, and in which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

import temper
from temper.cli import main
from temper.errors import SearchSpaceError
from temper.search import Parameter, SearchSpace, build_trials, check_space, load_space
from temper.search.constraints import Constraint
from temper.spec import dump_yaml

KINDS = {
    "schedule.kind": {"choice": ["full", "gradual", "last_k"]},
    "schedule.epochs_per_group": {"integers": [1, 2], "when": {"schedule.kind": "gradual"}},
    "schedule.k": {"integers": [1, 3], "when": {"schedule.kind": ["last_k"]}},
}


def space(**fields: Any) -> SearchSpace:
    return SearchSpace.model_validate({"parameters": {"objective.alpha": {"uniform": [0, 1]}}, **fields})


@pytest.mark.parametrize("fields", [{}, {"scheduler": None}, {"baseline": {"objective.adversary": None}}])
def test_what_a_sweep_writes_down_is_the_space_that_it_had(fields: dict[str, Any], tmp_path: Path) -> None:
    """`scheduler: null` was once left out, so that a resumed grid was stopped by ASHA."""
    path = tmp_path / "space.yaml"
    path.write_text(dump_yaml(space(**fields).document()))
    assert load_space(path) == space(**fields)


def test_every_kind_of_values_stays_within_its_bounds() -> None:
    generator = np.random.default_rng(0)
    for document, allowed in (
        ({"choice": [1, {"kind": "full"}, None]}, lambda v: v in [1, {"kind": "full"}, None]),
        ({"uniform": ["2/255", "8/255"]}, lambda v: 2 / 255 <= v <= 8 / 255),
        ({"loguniform": [1e-3, 1.0]}, lambda v: 1e-3 <= v <= 1.0),
        ({"integers": [2, 4]}, lambda v: v in (2, 3, 4) and isinstance(v, int)),
        ({"integers": [1, 9], "step": 4}, lambda v: v in (1, 5, 9)),
        ({"uniform": [0.05, 0.2], "step": 0.05}, lambda v: v in (0.05, 0.1, 0.15, 0.2)),
    ):
        parameter = Parameter.model_validate(document)
        drawn = [parameter.draw(generator) for _ in range(200)]
        assert all(allowed(value) for value in drawn), document
        assert len({str(value) for value in drawn}) > 1


def test_loguniform_gives_each_decade_its_share() -> None:
    generator = np.random.default_rng(0)
    parameter = Parameter(loguniform=(1e-4, 1.0))
    exponents = np.log10([parameter.draw(generator) for _ in range(4000)])
    shares = np.histogram(exponents, bins=[-4, -3, -2, -1, 0])[0] / 4000
    assert np.allclose(shares, 0.25, atol=0.04)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "give exactly one of choice, grid"),
        ({"choice": [1], "uniform": [0, 1]}, "got choice, uniform"),
        ({"uniform": [1, 0]}, "a lower and a higher end"),
        ({"loguniform": [0, 1]}, "needs positive ends"),
        ({"choice": [1], "step": 1}, "step quantises numbers"),
        ({"uniform": [0, 0.1], "step": 0.2}, "wider than uniform"),
        ({"integers": [0, 9], "step": 0.5}, "a whole number"),
        ({"loguniform": [0.1, 1], "step": 0.1}, "for loguniform list the values"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(
    document: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"parameters": {"objective.alpha": document}}))
    with pytest.raises(SearchSpaceError, match=message) as caught:
        load_space(path)
    assert str(caught.value).startswith(f"{path}: 'parameters.objective.alpha")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "test/target/robust_acc"}, "'metric'"),
        ({"objectives": ["val/target/robust_acc", "test/target/clean_acc"]}, "'objectives.1'"),
        ({"search": "nsga2"}, "two objectives or more"),
        ({"objectives": ["val/target/clean_acc"]}, "the first is the metric"),
        ({"search": "grid"}, "a grid needs values that can be counted"),
        ({"search": "tpe", "parameters": {"objective.alpha": {"grid": [0, 1]}}}, "tpe chooses values"),
        ({"scheduler": {"kind": "pbt"}, "parameters": {"optim.lr": {"uniform": [0.1, 1]}}}, "pbt changes"),
        ({"scheduler": {"kind": "pbt"}, "search": "tpe"}, "pbt begins with random points"),
        ({"scheduler": {"kind": "hyperband"}}, "no kind 'hyperband'. Kinds: 'asha'"),
        ({"constraints": ["objective.alpha"]}, "is not a comparison"),
        ({"constraints": ["__import__('os') < 1"]}, "neither a number nor a dotted path"),
        (
            {"parameters": {"schedule.k": {"integers": [1, 2], "when": {"schedule.kind": "x"}}}},
            "no parameter",
        ),
        (
            {
                "parameters": {
                    "optim.lr": {"choice": [1], "when": {"epochs": 1}},
                    "epochs": {"choice": [1], "when": {"optim.lr": 1}},
                }
            },
            "depend on each other",
        ),
        ({"samplse": 3}, "did you mean 'samples'"),
    ],
)
def test_spaces_that_cannot_be_meant_are_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"parameters": {"objective.alpha": {"uniform": [0, 1]}}, **fields}))
    with pytest.raises(SearchSpaceError, match=message) as caught:
        load_space(path)
    assert str(path) in str(caught.value)


def test_metrics_that_no_trial_measures_say_why(tmp_path: Path) -> None:
    for metric, why in (
        ("test/target/robust_acc", "a search that sees test images spoils them"),
        ("val/target/loss", "trials do not measure it"),
    ):
        path = tmp_path / "space.yaml"
        path.write_text(yaml.safe_dump({"parameters": {"epochs": {"choice": [1]}}, "metric": metric}))
        with pytest.raises(SearchSpaceError) as caught:
            load_space(path)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"{path}: 'metric': {why}")
        assert "val/target/robust_acc" in line
        assert f"got '{metric}'" in line


def test_reversed_ends_are_shown_in_order() -> None:
    with pytest.raises(ValidationError, match=r"got 0\.1 and 0\.0001; write \[0\.0001, 0\.1\]"):
        Parameter(loguniform=(0.1, 1e-4))


def test_numbers_that_yaml_takes_for_text_are_numbers(tiny_recipe: Any, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "search: grid\nbaseline: {optim.lr: 1e-3}\n"
        "parameters:\n  optim.lr: {choice: [1e-4, 2.5E-3]}\n"
        "  optim.weight_decay: {choice: [1e-5], when: {optim.lr: 1e-4}}\n"
        "  optim.lr_schedule: {choice: [constant]}\n"
    )
    loaded = load_space(path)
    assert loaded.baseline == {"optim.lr": 1e-3}
    points = [trial.overrides for trial in build_trials(loaded, tiny_recipe().resolved(), "space")]
    assert points == [
        {"optim.lr": 1e-4, "optim.weight_decay": 1e-5, "optim.lr_schedule": "constant"},
        {"optim.lr": 2.5e-3, "optim.lr_schedule": "constant"},
    ]


def test_a_condition_decides_which_settings_a_point_has(tiny: dict[str, Any], tiny_recipe: Any) -> None:
    trials = build_trials(space(samples=40, parameters=KINDS), tiny_recipe().resolved(), "space")
    assert {trial.overrides["schedule.kind"] for trial in trials} == {"full", "gradual", "last_k"}
    for trial in trials:
        kind = trial.overrides["schedule.kind"]
        expected = {"gradual": {"schedule.epochs_per_group"}, "last_k": {"schedule.k"}}.get(kind, set())
        assert set(trial.overrides) - {"schedule.kind"} == expected
        assert trial.recipe.schedule.kind == kind


def test_a_space_of_six_recipes_makes_six_trials_however_many_are_asked_for(tiny_recipe: Any) -> None:
    document = tiny_recipe().resolved()
    drawn = build_trials(space(samples=50, parameters=KINDS), document, "space")
    walked = build_trials(space(search="grid", parameters=KINDS), document, "space")
    assert len(drawn) == len(walked) == 6
    assert {trial.recipe.hash for trial in drawn} == {trial.recipe.hash for trial in walked}
    assert [trial.trial for trial in walked] == [f"{number:03d}" for number in range(6)]


def test_grid_parameters_cross_every_sample(tiny_recipe: Any) -> None:
    parameters = {"objective.alpha": {"uniform": [0, 1]}, "epochs": {"grid": [2, 3, 4]}}
    trials = build_trials(space(samples=5, parameters=parameters), tiny_recipe().resolved(), "space")
    assert len(trials) == 15
    for start in range(0, 15, 3):
        alphas = {trial.overrides["objective.alpha"] for trial in trials[start : start + 3]}
        assert len(alphas) == 1
        assert [trial.overrides["epochs"] for trial in trials[start : start + 3]] == [2, 3, 4]


def test_constraints_hold_in_every_trial(tiny_recipe: Any) -> None:
    rules = ["objective.adversary.eps <= threat.eps", "objective.alpha >= 2 * objective.adversary.eps"]
    parameters = {"objective.alpha": {"uniform": [0, 1]}, "objective.adversary.eps": {"uniform": [0, 0.3]}}
    trials = build_trials(
        space(samples=30, parameters=parameters, constraints=rules), tiny_recipe().resolved(), "space"
    )
    assert len(trials) == 30
    for trial in trials:
        eps, alpha = trial.overrides["objective.adversary.eps"], trial.overrides["objective.alpha"]
        assert eps <= 0.1
        assert alpha >= 2 * eps
    impossible = space(constraints=["objective.alpha > 2"])
    with pytest.raises(SearchSpaceError, match=r"no point satisfies the constraints: objective\.alpha > 2"):
        build_trials(impossible, tiny_recipe().resolved(), "space")


@pytest.mark.parametrize(
    ("text", "recipe", "holds"),
    [
        ("a.b <= 0.5", {"a": {"b": 0.5}}, True),
        ("a.b < 0.5", {"a": {"b": 0.5}}, False),
        ("2 * a.b > 8/255", {"a": {"b": 5 / 255}}, True),
        ("schedule.kind != full", {"schedule": {"kind": "full"}}, False),
        ("schedule.kind == full", {"schedule": {"kind": "full"}}, True),
        ("a.b <= 0.5", {"a": None}, True),
    ],
)
def test_a_constraint_compares_what_it_says(text: str, recipe: dict[str, Any], holds: bool) -> None:
    assert Constraint.parse(text).holds(recipe) is holds


def test_the_same_space_gives_the_same_trials_and_another_seed_others(tiny_recipe: Any) -> None:
    document = tiny_recipe().resolved()
    first, second = (build_trials(space(samples=6), document, "space") for _ in range(2))
    assert [t.recipe.hash for t in first] == [t.recipe.hash for t in second]
    other = build_trials(space(samples=6, seed=1), document, "space")
    assert not {t.recipe.hash for t in first} & {t.recipe.hash for t in other}
    # More samples only add to those that were there.
    more = build_trials(space(samples=9), document, "space")
    assert [t.recipe.hash for t in more][:6] == [t.recipe.hash for t in first]


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_path_that_no_recipe_has_is_found_before_anything_starts(search: str, tiny_recipe: Any) -> None:
    wrong = space(search=search, parameters={"objctive.alpha": {"uniform": [0, 1]}})
    with pytest.raises(SearchSpaceError, match=r"space: trial 0: no field 'objctive'"):
        check_space(wrong, tiny_recipe().resolved(), "space")


def test_source_accuracy_is_no_objective_without_source_images(tiny_recipe: Any) -> None:
    recipe = tiny_recipe(data__source=None, objective__alpha=0)
    wanted = ["val/target/robust_acc", "val/source/clean_acc"]
    with pytest.raises(SearchSpaceError, match=r"objectives: val/source/clean_acc needs data.source"):
        check_space(
            space(objectives=wanted, parameters={"optim.lr": {"uniform": [0.1, 1]}}), recipe.resolved(), "s"
        )


@pytest.mark.parametrize("how", ["--dry-run", "job", "api", "resumed"])
def test_samples_of_a_grid_are_refused(how: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """They would have no effect, however they are given."""
    root = Path(__file__).parents[3]
    files = [f"{root}/jobs/recipes/tiny.yaml", f"{root}/search_spaces/alpha.yaml"]
    if how == "api":
        with pytest.raises(SearchSpaceError, match="is a grid, which tries each of its points once"):
            temper.sweep(files[0], load_space(Path(files[1])), tmp_path / "out", samples=3)
        return
    words = ["sweep", *files, "--samples", "3"]
    if how == "job":
        sent = [word.removeprefix(f"{root}/") for word in words]
        words = ["job", "submit", "--working-dir", str(root), "--", *sent, "--out", "/shared/out"]
    elif how == "resumed":
        for file, name in zip(files, ("recipe.yaml", "space.yaml"), strict=True):
            (tmp_path / name).write_text(Path(file).read_text())
        words = ["sweep", "--resume", str(tmp_path), "--samples", "3"]
    else:
        words.append(how)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "is a grid, which tries each of its points once" in capsys.readouterr().err.replace("\n", " ")


def test_going_on_is_tried_where_a_sweep_goes_by_default_and_not_in_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[3]
    recipe, space = root / "jobs/recipes/tiny.yaml", root / "search_spaces/alpha.yaml"
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/tiny-sweep"
    folder.mkdir(parents=True)
    (folder / "points.jsonl").touch()
    for file, name in ((recipe, "recipe.yaml"), (space, "space.yaml")):
        (folder / name).write_text(file.read_text())
    (folder / "space.yaml").write_text(space.read_text().replace("search: grid", "search: random"))
    words = ["sweep", str(recipe), str(space), "--go-on"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "runs/tiny-sweep: holds a sweep of another recipe or space" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--dry-run"])
    assert "holds a sweep" not in capsys.readouterr().err
