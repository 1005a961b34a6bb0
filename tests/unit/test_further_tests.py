"""Further test sets: the same model on images of other sites, in the record, on the card, and verified."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit.brightness import ZOO

from temper.cli import main
from temper.cli.evaluation import _further_tests
from temper.cluster.evaluate import evaluate_external, evaluate_run
from temper.cluster.launch import launch, plan_run
from temper.data import ImageView, ShardSet, write_shards
from temper.errors import RecipeError, TemperError, UsageError
from temper.formats import percent
from temper.leaderboard import build_leaderboard
from temper.leaderboard.entries import Entry
from temper.leaderboard.further_tests import further_columns
from temper.records import (
    EvaluationRecord,
    hash_of_recipe,
    read_outcomes,
    read_record,
)
from temper.run.external_model import ExternalModelSpec
from temper.run.test_sets import load_test, open_tests
from temper.run.verify import verify_record
from temper.statistics import drop_between, wilson
from temper.verification import verify_shallow


def make_set(folder: Path, shift: float, seed: int, *, names: tuple[str, str] = ("bright", "dark")) -> Path:
    """Bright and dark images, 10 of each in each split, whose means lie ``shift`` from the middle."""
    generator = np.random.default_rng(seed)
    for split in ("train", "val", "test"):
        for name, sign in zip(names, (1, -1), strict=True):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for index in range(10):
                pixels = generator.normal(127.5 + sign * shift, 3, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    write_shards(folder / "images", folder / "shards")
    return folder / "shards"


def document(folder: Path, **tests: Path) -> dict[str, Any]:
    return {
        "name": "zoo",
        "model": f"{folder}/zoo.py:build",
        "shards": folder / "main/shards",
        "tests": tests,
        "image_size": 8,
        "threat": {"norm": "linf", "eps": 0.03},
        "evaluation": {"suite": "quick"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A main set that stands every attack, one as good, and one so grey that a small attack fools all."""
    folder = tmp_path_factory.mktemp("sites")
    (folder / "zoo.py").write_text(ZOO)
    make_set(folder / "main", 60, 0)
    make_set(folder / "alike", 60, 1)
    make_set(folder / "grey", 2, 2)
    spec = document(folder, alike=folder / "alike/shards", grey=folder / "grey/shards")
    evaluate_external(ExternalModelSpec.model_validate(spec), folder / "run")
    return folder


@pytest.fixture
def record(folder: Path) -> EvaluationRecord:
    return read_record(folder / "run/record.json")


def test_the_record_says_how_far_the_model_falls_on_each_set(folder: Path, record: EvaluationRecord) -> None:
    alike, grey = record.tests
    assert [one.name for one in record.tests] == ["alike", "grey"]
    assert record.robust_acc == wilson(20, 20) == alike.robust_acc
    assert grey.clean_acc.value > 0.9
    assert grey.robust_acc.value < 0.2
    assert grey.fingerprint == ShardSet.open(folder / "grey/shards").fingerprint
    assert (grey.data_name, grey.split, grey.num_images) == ("images", "test", 20)
    assert grey.robust_drop == drop_between(record.robust_acc, grey.robust_acc)
    assert grey.robust_drop.low > 0, "the drop is more than chance"
    assert alike.robust_drop.low < 0 == alike.robust_drop.value < alike.robust_drop.high
    robust = read_outcomes(folder / "run/outcomes-grey.parquet")["robust"].to_pylist()
    assert grey.robust_acc == wilson(sum(robust), 20)
    assert grey.robust_balanced_acc == pytest.approx((sum(robust[:10]) + sum(robust[10:])) / 20)


def test_the_gates_are_asked_on_each_set_too(record: EvaluationRecord) -> None:
    gates = {gate.name: gate for gate in record.gates}
    assert {"gates, alike", "gates, grey", "leakage, alike", "leakage, grey"} < set(gates)
    assert gates["leakage, grey"].detail == "0 of 20 images lie in train or val of the target too"
    assert record.status == "ok"


def test_the_interval_of_a_drop_is_newcombes() -> None:
    drop = drop_between(wilson(56, 70), wilson(48, 80))  # the examples of the article, table II
    assert (drop.value, drop.low, drop.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    drop = drop_between(wilson(9, 10), wilson(3, 10))
    assert (drop.low, drop.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_verify_recomputes_each_set(folder: Path, tmp_path: Path) -> None:
    model = f"{folder}/zoo.py:build"
    checks = {check.name: check for check in verify_record(folder / "run", model=model).checks}
    assert all(check.passed for check in checks.values()), [c for c in checks.values() if not c.passed]
    shutil.copytree(folder / "run", tmp_path / "run")
    file = tmp_path / "run/record.json"
    written = json.loads(file.read_text())
    written["tests"][1]["robust_acc"] = written["tests"][0]["robust_acc"]
    file.write_text(json.dumps(written))
    failed = [check for check in verify_shallow(file).checks if not check.passed]
    assert [check.name for check in failed] == ["further test sets"]
    assert "tests.grey.robust_acc" in failed[0].detail
    (tmp_path / "run/outcomes-grey.parquet").unlink()
    failed = [check for check in verify_shallow(file).checks if not check.passed]
    assert {check.name for check in failed} == {"file outcomes of grey", "further test sets"}


def test_other_shards_in_the_place_of_a_set_are_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    file = tmp_path / "run/record.json"
    written = json.loads(file.read_text())
    written["recipe"]["tests"]["grey"] = str(folder / "alike/shards")
    file.write_text(json.dumps(written))
    checks = {check.name: check for check in verify_record(file, model=f"{folder}/zoo.py:build").checks}
    assert not checks["images"].passed
    assert "tests.grey.fingerprint" in checks["images"].detail


def test_the_card_shows_each_set(folder: Path, tmp_path: Path) -> None:
    build_leaderboard([folder / "run"], tmp_path)
    (card,) = (tmp_path / "models").glob("*.html")
    text = card.read_text()
    assert "Further test sets" in text
    assert "<bdi>grey</bdi>" in text


def test_copies_of_training_images_block(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "alike/images", tmp_path / "leaky/images")
    for name in ("bright", "dark"):
        copied = folder / f"main/images/train/{name}/3.png"
        shutil.copy(copied, tmp_path / f"leaky/images/test/{name}/7.png")
    again = tmp_path / "leaky/images/test/bright/8.png"  # the same pixels in another file
    Image.open(folder / "main/images/val/bright/5.png").save(again, compress_level=0)
    write_shards(tmp_path / "leaky/images", tmp_path / "leaky/shards")
    spec = document(folder, leaky=tmp_path / "leaky/shards")
    record = evaluate_external(ExternalModelSpec.model_validate(spec), tmp_path / "run")
    assert record.status == "blocked"
    (gate,) = (gate for gate in record.gates if not gate.passed)
    assert gate.name == "leakage, leaky"
    assert gate.detail.startswith("3 of 20 images lie in train or val of the target too: there they are ")
    assert "train/dark/3.png" in gate.detail
    spec["evaluation"] |= {"allow_leakage": True}
    allowed = evaluate_external(ExternalModelSpec.model_validate(spec), tmp_path / "allowed")
    assert allowed.status == "ok"
    assert any("allowed by evaluation.allow_leakage: 3 of 20" in gate.detail for gate in allowed.gates)


def test_classes_are_found_by_name(folder: Path, tmp_path: Path) -> None:
    target = ShardSet.open(folder / "main/shards")
    other = make_set(tmp_path, 60, 3, names=("bright", "other"))
    with pytest.raises(
        RecipeError, match=r"data.tests.b: .* lacks the class 'dark' and also has the class 'other'"
    ):
        open_tests({"b": other}, target)


def test_labels_follow_the_names_of_the_classes(folder: Path, tmp_path: Path) -> None:
    """The same shards with their classes in another order."""
    shards = tmp_path / "shards"
    shutil.copytree(folder / "alike/shards", shards)
    opened = ShardSet.open(shards)
    turned = ShardSet(shards, opened.manifest.model_copy(update={"classes": opened.classes[::-1]}))
    labels = load_test(opened, opened.classes, ImageView(8)).labels
    assert np.array_equal(load_test(turned, opened.classes, ImageView(8)).labels, 1 - labels)


def test_without_further_sets_hashes_and_records_stay(folder: Path, tmp_path: Path) -> None:
    recipe = {"name": "a", "data": {"target": "t"}}
    with_none = {"name": "a", "data": {"target": "t", "tests": {}}}
    with_one = {"name": "a", "data": {"target": "t", "tests": {"b": "shards/b"}}}
    assert hash_of_recipe(recipe) == hash_of_recipe(with_none) != hash_of_recipe(with_one)
    written = json.loads((folder / "run/record.json").read_text())
    del written["tests"]
    (tmp_path / "record.json").write_text(json.dumps(written))
    assert read_record(tmp_path / "record.json").tests == []


def test_the_board_has_columns_of_each_set_where_some_model_has_one(folder: Path, tmp_path: Path) -> None:
    plain = document(folder) | {"name": "plain"}
    evaluate_external(ExternalModelSpec.model_validate(plain), tmp_path / "runs/plain")
    summary = build_leaderboard([folder / "run", tmp_path / "runs"], tmp_path / "board")
    rows = list(csv.DictReader((tmp_path / "board/leaderboard.csv").read_text().splitlines()))
    by_name = {row["name"]: row for row in rows}
    assert float(by_name["zoo"]["tests/grey/robust_acc"]) < 0.2
    assert by_name["plain"]["tests/grey/robust_acc"] == ""
    assert "| grey (drop) |" in (tmp_path / "board/leaderboard.md").read_text()
    assert "Further test sets" in (tmp_path / "board/index.html").read_text()
    (tested,) = (one for board in summary.boards for one in board.entries if one.tests)
    assert [column.label for column in further_columns([tested])] == ["alike", "grey"]
    build_leaderboard([tmp_path / "runs"], tmp_path / "without")
    for name in ("index.html", "leaderboard.md", "leaderboard.csv"):
        text = (tmp_path / "without" / name).read_text()
        assert "Further test sets" not in text
        assert "tests/" not in text


def test_sets_of_one_name_and_other_images_are_columns_of_their_own(record: EvaluationRecord) -> None:
    first, other = record.tests[0], record.tests[1].model_copy(update={"name": "alike"})
    entries = [Entry.model_construct(tests=[one]) for one in (first, other)]
    columns = further_columns(entries)
    assert sorted(column.label for column in columns) == sorted(
        f"alike ({one.fingerprint[:6]}, 20 images)" for one in (first, other)
    )
    assert [column.of(entries[0]) for column in columns].count(None) == 1


def test_a_run_is_evaluated_on_the_sets_of_its_recipe_and_of_the_command(
    tiny_recipe: Any, tmp_path: Path
) -> None:
    recipe = tiny_recipe()
    shutil.copytree(recipe.data.target, tmp_path / "site_b")
    launch(tiny_recipe(data__tests__site_b=str(tmp_path / "site_b")), tmp_path / "run")
    tests = _further_tests([f"site_c={tmp_path / 'site_b'}"])
    overrides = {f"data.tests.{name}": place for name, place in tests.items()}
    record = evaluate_run(tmp_path / "run", overrides)
    assert [one.name for one in record.tests] == ["site_b", "site_c"]
    for one in record.tests:  # the same images as the main ones: the same answers, attacked alike
        assert one.clean_acc == record.clean_acc
        assert one.robust_acc == record.robust_acc
        assert one.robust_drop.value == 0
    assert record.cost.num_evaluate_forward > 2 * record.attacks[0].num_attacked
    assert all(check.passed for check in verify_record(tmp_path / "run").checks)


def test_the_command_evaluates_a_run_on_a_set_and_says_what_it_found(
    evaluated_run: Path, digits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--test", f"site_b={digits['target']}", "--set", "evaluation.max_images=20"]
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", str(evaluated_run), *given, "--out", str(out)])
    (one,) = read_record(out / "record.json").tests
    assert (one.name, one.num_images) == ("site_b", 20)
    shown = capsys.readouterr().out
    assert f"{percent(one.clean_acc.value)} %" in shown
    assert "site_b, clean" in shown
    assert "site_b, robust" in shown
    assert (out / "outcomes-site_b.parquet").exists()
    assert all(check.passed for check in verify_shallow(out / "record.json").checks)
    with pytest.raises(SystemExit, match="1"):
        main(["evaluate", str(evaluated_run), "--test", "b=nowhere", "--out", str(tmp_path / "other")])
    assert "nowhere: no shards here" in capsys.readouterr().err.splitlines()[-1]


def test_a_set_of_other_classes_or_that_is_missing_stops_before_training(
    tiny_recipe: Any, folder: Path, tmp_path: Path
) -> None:
    for place, problem in (
        (folder / "main/shards", "data.tests.site_b: .* needs exactly the classes of the target"),
        (tmp_path / "nowhere", "nowhere: no shards here"),
    ):
        with pytest.raises(TemperError, match=problem):
            plan_run(tiny_recipe(data__tests__site_b=str(place)))
        with pytest.raises(TemperError, match=problem):
            launch(tiny_recipe(data__tests__site_b=str(place)), tmp_path / "run")
    assert not (tmp_path / "run/checkpoint").exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["site_b"], "expected NAME=SHARDS"),
        (["a.b=x"], "expected NAME=SHARDS"),
        (["a=x", "a=y"], "is given twice"),
    ],
)
def test_a_wrong_test_option_is_one_line(given: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        _further_tests(given)


@pytest.mark.parametrize(
    ("tests", "problem"),
    [
        ({"kind": "x"}, "cannot be called 'kind'"),
        ({"b": "x", "B": "y"}, "'b' and 'B' would be the same file"),
    ],
)
def test_names_that_would_clear_or_overwrite_others_are_refused(
    tiny_recipe: Any, tests: dict[str, str], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        tiny_recipe(data__tests=tests)
