"""The table of the benchmark: which rows stay, which are won, and what a page shows of them."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SCRIPTS = ("first", "second")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("table")


def result(table: ModuleType, script: str, name: str, ours: float, goal: str = "<= 0.5") -> Any:
    row = importlib.import_module("row").Row(
        name, "a peer", "s", goal, ours=lambda: ours, peer=lambda: 2.0, rounds=1
    )
    return table.result_of(script, row, row.measure(3))


def test_a_new_row_takes_the_place_of_its_own_and_of_no_other(table: ModuleType) -> None:
    former = [
        result(table, "second", "a", 1.0),
        result(table, "first", "b", 1.0),
        result(table, "gone", "c", 1.0),
    ]
    rows = table.merged(former, [result(table, "second", "a", 4.0)], SCRIPTS)
    assert [(row["script"], row["measure"], row["ratio"]) for row in rows] == [
        ("first", "b", 0.5),
        ("second", "a", 2.0),
    ]


@pytest.mark.parametrize(
    ("goal", "is_won"), [("<= 0.5", True), ("<= 0.49", False), (">= 0.5", True), (">= 3", False)]
)
def test_a_row_is_won_at_its_goal(table: ModuleType, goal: str, is_won: bool) -> None:
    assert result(table, "first", "a", 1.0, goal)["is_won"] is is_won


def test_results_are_read_as_they_were_written(table: ModuleType, tmp_path: Path) -> None:
    rows = [result(table, "first", "a", 1.0), result(table, "second", "b", 3.0)]
    table.write_results(rows, tmp_path / "results.json", "python bench/run.py")
    assert table.read_results(tmp_path / "results.json") == rows
    assert json.loads((tmp_path / "results.json").read_text())["versions"]["torch"]
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("1 of 2 rows won.")
    assert "| a | a peer | s | 1 | 2 | 0.5 | 0.5 to 0.5 | <= 0.5 | yes |" in text
    assert "| b | a peer | s | 3 | 2 | 1.5 | 1.5 to 1.5 | <= 0.5 | no |" in text


def test_the_page_has_a_place_for_each_table(table: ModuleType) -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    for name in ("results", "avx2"):
        begin, end = table.marks(name)
        assert page.index(begin) < page.index(end)
        assert (BENCH / f"{name}.md").read_text(encoding="utf-8") in page[page.index(begin) : page.index(end)]


def test_a_table_goes_to_its_own_place(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, begin, end = tmp_path / "page.md", *table.marks("other")
    page.write_text(f"before {begin} former {end} after")
    monkeypatch.setattr(table, "PAGE", page)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    table.write_results([result(table, "first", "a", 1.0)], tmp_path / "bench/other.json", "a command")
    text = (tmp_path / "bench/other.md").read_text()
    assert page.read_text() == f"before {begin}\n\n{text}\n{end} after"
    table.write_results([], tmp_path / "bench/elsewhere.json", "a command")
    assert text in page.read_text()


def test_a_script_that_never_had_the_row_asked_for_is_not_set_up(
    table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "SCRIPTS", (*SCRIPTS, "new"))
    former = [result(table, "first", "weak model", 1.0), result(table, "second", "robust model", 1.0)]
    assert run._candidates(["robust"], former) == ["second", "new"]
    assert run._candidates([], former) == ["first", "second", "new"]
    assert run._candidates(["anything"], []) == ["first", "second", "new"]
