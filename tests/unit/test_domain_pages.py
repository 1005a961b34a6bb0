"""The page of results: its commands are those that are run, and what it says of a sweep is in the records."""

import importlib
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from temper.leaderboard import build_leaderboard
from temper.records import LedgerRow

ROOT = Path(__file__).parents[2]
DOMAINS = ("medical", "manufacturing", "traffic")


pages = importlib.import_module("domain_page")
domains = importlib.import_module("domains")


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_page_names_the_commands_that_are_run(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPER_DATA", "/sets")
    commands = domains.commands_of(domain, ROOT / "docs/results.md")
    assert [words[1] for words in commands] == ["shards", "shards", "sweep", "leaderboard"]
    assert commands[0][2].startswith("/sets/")
    assert commands[2][2:4] == [f"jobs/recipes/{domain}.yaml", f"search_spaces/{domain}.yaml"]
    assert commands[2][5] == commands[3][2] == f"runs/{domain}-sweep"


def test_effects_are_means_over_pairs_that_differ_in_one_factor(
    vary: Any, evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each level adds images: 8 by the source, none by the schedule, 16 by strength; the baseline has 4."""
    monkeypatch.chdir(tmp_path)
    base = yaml.safe_load((evaluated_run / "recipe.yaml").read_text())
    schedules = [{"kind": "full"}, {"kind": "lp_ft", "head_frac": 0.25}]
    rows = []
    for number, (alpha, schedule, eps) in enumerate(
        itertools.product((0.0, 0.3), schedules, (0.05, 0.1, None))
    ):
        if eps is None and (alpha == 0.0 or schedule["kind"] == "lp_ft"):
            continue
        right = 4 if eps is None else 20 + 8 * (alpha > 0) + 16 * (eps > 0.05)
        trial = "baseline" if eps is None else f"{number:03d}"
        adversary = None if eps is None else {"kind": "pgd", "norm": "linf", "eps": eps}
        objective = {**base["objective"], "alpha": alpha, "adversary": adversary}
        recipe = {**base, "objective": objective, "schedule": schedule}
        vary(tmp_path / "runs/traffic-sweep/trials", trial, np.arange(80) < right, name=trial, recipe=recipe)
        metrics = {"epoch": 2, "best/val/target/clean_acc": 0.9, "best/val/target/robust_acc": right / 80}
        fields = {"status": "finished", "overrides": {"objective.alpha": alpha}, "cost": {"train_s": 1.0}}
        rows.append(LedgerRow(trial=trial, recipe_hash="0" * 16, metrics=metrics, **fields))
    sweep = tmp_path / "runs/traffic-sweep"
    (sweep / "ledger.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    (sweep / "recipe.yaml").write_text(yaml.safe_dump(base))
    (sweep / "space.yaml").write_text("parameters: {objective.alpha: {choice: [0.0, 0.3]}}")
    build_leaderboard([sweep], tmp_path / "runs/traffic-board")
    (tmp_path / "docs").mkdir()
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    (tmp_path / "docs/results.md").write_text(text, encoding="utf-8")

    pages.write_page("traffic", tmp_path / "docs")
    made = (tmp_path / "docs/results.md").read_text(encoding="utf-8")
    own = made.partition("\n## Traffic\n")[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in own.splitlines()]
    found = {row[0]: row for row in cells if row[0] in ("alpha", "schedule", "strength") and len(row) > 9}
    robust = next(row for row in cells if row[0] == "factor").index("robust")
    assert found["alpha"][1:4] == ["0.0", "0.3", "4"]
    assert found["alpha"][robust] == "+10.0"
    assert found["schedule"][robust] == "+0.0"
    assert found["schedule"][-1] == "1"
    assert found["strength"][1:4] == ["0.05", "0.1", "4"]
    assert found["strength"][robust] == "+20.0"
    assert float(found["strength"][-1]) < float(found["alpha"][-1]) < 0.01
    trials = [row[0] for row in cells if re.fullmatch(r"\d{3}|baseline", row[0])]
    assert len(trials) == 9
    assert trials[-1] == "baseline"
    for path in (tmp_path / "docs/results/traffic").glob("*.png"):
        assert path.stat().st_size < 150_000
        with Image.open(path) as picture:
            assert picture.width > 400
    assert {"effects.png", "front.png"} <= {
        path.name for path in (tmp_path / "docs/results/traffic").iterdir()
    }

    pages.write_page("traffic", tmp_path / "docs")  # anew: nothing is written twice
    assert (tmp_path / "docs/results.md").read_text(encoding="utf-8") == made
