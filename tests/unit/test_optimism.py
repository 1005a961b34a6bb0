"""A number by a short suite is never shown without how much too high such numbers were."""

import re
from pathlib import Path
from typing import Any

import pytest

from temper.evaluation import suite_for
from temper.leaderboard import leaderboard
from temper.records import caution_about
from temper.records.suite import OPTIMISM

ROOT = Path(__file__).parents[2]


def measured() -> dict[str, float]:
    """Norm -> the most points that stand between the suites in the table of docs/evaluation.md."""
    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    table = text.partition("| model | threat model | images | `quick` |")[2].partition("\n\n")[0]
    found: dict[str, float] = {}
    for norm, points in re.findall(r"\| (L\w+) [^|]+\|(?:[^|]+\|){3} ([\d.]+) \|", table):
        found[norm.lower()] = max(found.get(norm.lower(), 0.0), float(points))
    return found


def test_what_is_told_is_what_was_measured_of_today_s_suites() -> None:
    told = {name.removeprefix("quick-"): round(100 * most, 1) for (name, _), most in OPTIMISM.items()}
    assert told == measured()
    for norm in ("linf", "l2", "l1"):
        suite = suite_for("quick", norm)
        assert caution_about(suite.name, suite.version)
    assert caution_about("quick-linf", 2) == ""
    assert caution_about("standard-linf", 2) == ""


@pytest.mark.parametrize(
    ("name", "version", "points"), [("quick-linf", 3, "3.3"), ("standard-linf", 2, None)]
)
def test_board_card_and_files_say_so(
    vary: Any, evaluated_run: Path, tmp_path: Path, name: str, version: int, points: str | None
) -> None:
    from temper.records import read_record

    suite = read_record(evaluated_run / "record.json").suite
    changed = suite.model_copy(update={"name": name, "version": version})
    vary(tmp_path, "run", [True, False] * 5, suite=changed)
    leaderboard([tmp_path], tmp_path / "board")
    pages = [path for kind in ("*.html", "*.md") for path in (tmp_path / "board").rglob(kind)]
    assert len(pages) >= 3
    for page in pages:
        told = "points above standard" in page.read_text(encoding="utf-8")
        assert told == (points is not None), page
        if points is not None:
            assert f"up to {points} points above standard" in page.read_text(encoding="utf-8")
