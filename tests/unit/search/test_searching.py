"""Choosing the next point, the finalists, and going on from files alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.holding import hold
from temper.cluster.sweep.trial_store import TrialStore
from temper.errors import CheckpointError, RecordError
from temper.records import LedgerRow, SweepFolder, read_ledger
from temper.search import BASELINE, Answer, OptunaPoints, SearchSpace, choose_finalists, front_of

ROBUST, CLEAN = "val/target/robust_acc", "val/target/clean_acc"
PLANE = {"objective.alpha": {"uniform": [0, 1]}, "objective.adversary.eps": {"uniform": [0, 0.2]}}


def space(**fields: Any) -> SearchSpace:
    return SearchSpace.model_validate({"parameters": PLANE, "scheduler": None, **fields})


def row(trial: str, robust: float, clean: float = 0.5, status: str = "finished", **more: Any) -> LedgerRow:
    metrics = {f"best/{ROBUST}": robust, f"best/{CLEAN}": clean}
    fields = {"recipe_hash": "0" * 16, "overrides": {}, "cost": {}, "metrics": metrics, **more}
    return LedgerRow.model_validate({"trial": trial, "status": status, **fields})


def peak(point: dict[str, Any]) -> float:
    """Highest, 1, at alpha 0.8 and eps 0.05."""
    return 1 - (point["objective.alpha"] - 0.8) ** 2 - 25 * (point["objective.adversary.eps"] - 0.05) ** 2


def search(searched: SearchSpace, document: dict[str, Any], known: Any = ()) -> list[dict[str, Any]]:
    points = OptunaPoints(searched, document, "space", known)
    found = []
    while (point := points.propose()) is not None:
        points.tell(len(known) + len(found), Answer("finished", (peak(point),)))
        found.append(point)
    return found


def test_tpe_comes_closer_to_the_peak_than_its_random_start(tiny_recipe: Any) -> None:
    found = search(space(search="tpe", samples=40), tiny_recipe().resolved())
    assert len(found) == 40
    start, end = [peak(point) for point in found[:10]], [peak(point) for point in found[-10:]]
    assert sum(end) / 10 > sum(start) / 10 + 0.1
    assert max(map(peak, found)) > 0.98


def test_tpe_goes_on_from_what_an_earlier_session_learned(tiny_recipe: Any) -> None:
    document = tiny_recipe().resolved()
    before = search(space(search="tpe", samples=20), document)
    known = [(point, Answer("finished", (peak(point),))) for point in before]
    after = search(space(search="tpe", samples=30), document, known)
    assert len(after) == 10
    assert sum(map(peak, after)) / 10 > sum(map(peak, before[:6])) / 6
    assert not [point for point in after if point in before]


def test_tpe_learns_from_trials_that_were_stopped(tiny_recipe: Any) -> None:
    points = OptunaPoints(space(search="tpe", samples=30), tiny_recipe().resolved(), "space")
    for number in range(30):
        point = points.propose()
        assert point is not None
        history = [(1, peak(point) / 2)]
        points.tell(number, Answer("stopped", (peak(point) / 2,), history))
    states = [trial.state.name for trial in points._study.trials]
    assert states == ["PRUNED"] * 30
    late = [peak(point) for point, _ in points._asked[-10:]]
    early = [peak(point) for point, _ in points._asked[:8]]
    assert sum(late) / 10 > sum(early) / 8


def test_nsga2_takes_failures_and_two_objectives(tiny_recipe: Any) -> None:
    searched = space(search="nsga2", samples=16, objectives=[ROBUST, CLEAN])
    points = OptunaPoints(searched, tiny_recipe().resolved(), "space")
    for number in range(16):
        point = points.propose()
        assert point is not None
        failed = number % 5 == 0
        values = None if failed else (point["objective.adversary.eps"], 1 - point["objective.adversary.eps"])
        points.tell(number, Answer("failed" if failed else "finished", values))
    assert points.propose() is None


def test_a_search_that_has_tried_everything_ends(tiny_recipe: Any) -> None:
    few = {"objective.alpha": {"choice": [0.1, 0.2, 0.3]}}
    points = OptunaPoints(space(search="tpe", samples=10, parameters=few), tiny_recipe().resolved(), "space")
    found = []
    while (point := points.propose()) is not None:
        points.tell(len(found), Answer("finished", (0.5,)))
        found.append(point["objective.alpha"])
    assert sorted(found) == [0.1, 0.2, 0.3]


def test_finalists_are_the_best_and_what_widens_the_front() -> None:
    rows = [
        row("000", 0.60, 0.70), row("001", 0.59, 0.71), row("002", 0.30, 0.95), row("003", 0.10, 0.60),
        row("004", 0.99, 0.99, status="stopped"), row(BASELINE, 0.05, 0.99),
    ]  # fmt: skip
    two = space(finalists=2, objectives=[ROBUST, CLEAN])
    assert choose_finalists(rows, two) == ["000", "002", BASELINE]
    assert choose_finalists(rows, space(finalists=2)) == ["000", "001", BASELINE]
    assert front_of(rows, two)[0] == ["000", "001", "002"]
    assert front_of(rows, space())[0] == ["000"]
    assert choose_finalists([row("000", 0.5, status="failed")], two) == []


def book(folder: Path, document: dict[str, Any], **fields: Any) -> TrialStore:
    return TrialStore(SweepFolder(folder), space(samples=4, baseline={}, **fields), document, "space")


def end(sweep: TrialStore, trial: str) -> None:
    sweep.ended(row(trial, 0.5, recipe_hash=sweep.trial(trial).recipe.hash))


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_book_goes_on_after_a_crash_at_any_line(kind: str, tiny_recipe: Any, tmp_path: Path) -> None:
    document = tiny_recipe().resolved()
    first = book(tmp_path, document, search=kind)
    begun = [first.next() for _ in range(3)]
    assert [trial.trial for trial in begun if trial] == [BASELINE, "000", "001"]
    end(first, "000")
    folder = SweepFolder(tmp_path)
    with folder.ledger.open("a") as file:
        file.write('{"trial": "001", "rec')  # the machine died here

    second = book(tmp_path, document, search=kind)
    assert not second.is_finished
    names, hashes = [], {}
    while (trial := second.next()) is not None:
        names.append(trial.trial)
        hashes[trial.trial] = trial.recipe.hash
        end(second, trial.trial)
        end(second, trial.trial)  # a second time changes nothing
    assert names == [BASELINE, "001", "002", "003"]
    assert begun[2] is not None
    assert hashes["001"] == begun[2].recipe.hash
    assert second.is_finished
    rows = read_ledger(folder.ledger)
    assert sorted(r.trial for r in rows) == ["000", "001", "002", "003", BASELINE]
    assert book(tmp_path, document, search=kind).next() is None


def test_a_book_of_another_recipe_is_refused(tiny_recipe: Any, tmp_path: Path) -> None:
    first = book(tmp_path, tiny_recipe().resolved())
    first.next(), first.next()
    with pytest.raises(RecordError, match="trial 000 was started with another recipe"):
        book(tmp_path, tiny_recipe(epochs=3).resolved())


def test_a_point_changed_by_hand_is_named_by_its_line(tiny_recipe: Any, tmp_path: Path) -> None:
    first = book(tmp_path, tiny_recipe().resolved())
    first.next(), first.next()
    path = SweepFolder(tmp_path).points
    path.write_text(json.dumps({"trial": "000"}) + "\n")
    with pytest.raises(RecordError, match=r"points.jsonl, line 1: not a point"):
        book(tmp_path, tiny_recipe().resolved())


def test_two_processes_cannot_run_one_sweep(tmp_path: Path) -> None:
    lock = SweepFolder(tmp_path).lock
    with (
        hold(lock, "running this sweep"),
        pytest.raises(CheckpointError, match="another process is running"),
        hold(lock, "running this sweep"),
    ):
        pass
