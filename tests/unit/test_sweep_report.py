"""A sweep's report, of ledgers written by hand."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from temper.errors import RecordError
from temper.explain import SweepReport, build_report, diverged
from temper.explain.parallel import ABSENT, build_axis
from temper.explain.trials import flatten, short_names
from temper.recipe import load_recipe
from temper.records import EvaluationRecord, LedgerRow, SweepRecord
from temper.tradeoff import hypervolume, pareto_front

CLEAN, ROBUST, SOURCE = "val/target/clean_acc", "val/target/robust_acc", "val/source/clean_acc"
EVIL = "</script><script>alert('x')</script>\"'|`{{7*7}}\n\u202e<img src=x onerror=alert(1)>"
SPACE = {
    "metric": ROBUST,
    "parameters": {
        "objective.alpha": {"loguniform": [0.01, 1.0]},
        "schedule": {"choice": [{"kind": "full"}, {"kind": "gradual", "epochs_per_group": 1}]},
    },
}


def row(
    trial: str,
    accuracies: tuple[float, ...] = (),
    *,
    status: str = "finished",
    overrides: dict[str, Any] | None = None,
    epochs: int = 4,
    passes: float = 400,
    **changes: Any,
) -> LedgerRow:
    """``accuracies``: clean, robust, source, as many as were measured."""
    measured = dict(zip((CLEAN, ROBUST, SOURCE), accuracies, strict=False))
    fields: dict[str, Any] = {
        "trial": trial,
        "recipe_hash": "0" * 16,
        "status": status,
        "overrides": overrides or {},
        "metrics": {"epoch": epochs, **{f"best/{name}": value for name, value in measured.items()}},
        "cost": {"train_s": 1.5 * epochs, "num_forward": passes, "num_backward": passes},
    }
    return LedgerRow.model_validate(fields | changes)


def write(folder: Path, rows: list[LedgerRow], record: SweepRecord | None = None, recipe: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row.model_dump_json() + "\n" for row in rows]
    (folder / "ledger.jsonl").write_text("".join(lines))
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe or {"name": "tiny", "epochs": 4}))
    if record is not None:
        (folder / "sweep.json").write_text(record.model_dump_json())
    return folder


def summary(**changes: Any) -> SweepRecord:
    counts = {"num_trials": 1, "num_finished": 1, "num_stopped": 0, "num_failed": 0}
    fields = {"name": "tiny", "metric": ROBUST, "finalists": [], "best": None, "seconds": 9.0}
    return SweepRecord.model_validate({**counts, **fields, **changes})


def search(count: int, seed: int = 0) -> list[LedgerRow]:
    """A sweep in which alpha decides, some trials were stopped, and one failed, beside a baseline."""
    generator = np.random.default_rng(seed)
    rows = [row("baseline", (0.99, 0.02, 0.95), overrides={"objective.adversary": None})]
    for index in range(count):
        alpha = float(np.exp(generator.uniform(np.log(0.01), 0)))
        schedule = SPACE["parameters"]["schedule"]["choice"][index % 2]  # type: ignore[index]
        noise = generator.normal(size=3) / 200
        level = -np.log(alpha) / 10
        accuracies = tuple(float(v) for v in np.array([0.9, 0.4 + level, 0.95 - level / 2]) + noise)
        is_stopped = index % 3 == 2
        rows.append(
            row(
                f"{index:03d}",
                accuracies,
                status="stopped" if is_stopped else "finished",
                overrides={"objective.alpha": alpha, "schedule": schedule},
                epochs=1 if is_stopped else 4,
                passes=100 if is_stopped else 400,
                reason="asha: below the best half" if is_stopped else None,
            )
        )
    rows.append(
        row("broken", status="failed", error="Traceback\nTrainingError: loss is not finite", epochs=0)
    )
    return rows


def test_trials_that_diverged_are_told_from_those_that_failed_otherwise(tmp_path: Path) -> None:
    error = "DivergenceError: the loss became nan in epoch 2, step 1; lower optim.lr from 10"
    rows = [*search(6), row("040", status="failed", error=error, epochs=0)]
    report = build_report(write(tmp_path / "sweep", rows))
    assert diverged(report) == "diverged: 040"
    assert report.trial("040").role == "diverged"
    assert report.trial("broken").role == "failed"
    text = report.page.with_name("sweep.md").read_text()
    assert "none failed" not in text
    assert "2 failed (diverged: 040)" in text
    assert "| 040 | diverged |" in text
    assert "the loss became nan in epoch 2, step 1" in words_of(page_of(report))


def page_of(report: SweepReport) -> str:
    """The page before its one script, which is at the end."""
    page, sign, script = report.page.read_text(encoding="utf-8").partition("<script>")
    assert not sign or script.rstrip().endswith("</script>\n</body>\n</html>")
    return page


def words_of(page: str) -> str:
    """What is to be read on the page, on one line."""
    body = re.sub(r"<(script|style|svg).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what it says -----------------------------------------------------------------------------


def test_front_and_volume_are_those_of_finished_trials(tmp_path: Path) -> None:
    rows = [
        row("a", (0.9, 0.5, 0.8)),
        row("b", (0.8, 0.6, 0.7)),
        row("c", (0.8, 0.5, 0.7)),
        row("quick", (0.99, 0.99, 0.99), status="stopped"),
        row("baseline", (1.0, 0.9, 1.0)),
    ]
    report = build_report(write(tmp_path, rows))
    assert report.front == ["b", "a"]
    assert report.hypervolume == pytest.approx(hypervolume([(0.9, 0.5, 0.8), (0.8, 0.6, 0.7)]))
    roles = {trial.trial: trial.role for trial in report.trials}
    assert roles == {
        "a": "on the front", "b": "on the front", "c": "finished", "quick": "stopped early",
        "baseline": "baseline",
    }  # fmt: skip
    assert [one.trial for one in report.best] == ["b", "a"]


def test_the_sweeps_own_objectives_make_the_front(tmp_path: Path) -> None:
    rows = [row("a", (0.9, 0.5, 0.8)), row("b", (0.8, 0.6, 0.7)), row("c", (0.7, 0.5, 0.9))]
    record = summary(objectives=[ROBUST, CLEAN], finalists=["a"])
    report = build_report(write(tmp_path, rows, record))
    assert report.objectives == [ROBUST, CLEAN]
    assert report.front == ["b", "a"]
    assert [one.trial for one in report.best] == ["a", "b"]


def test_compute_is_added_up_and_what_stopping_saved_is_estimated(tmp_path: Path) -> None:
    rows = [
        row("a", (0.9, 0.5), epochs=4, passes=400),
        row("b", (0.9, 0.4), status="stopped", epochs=1, passes=100),
        row("c", (0.9, 0.3), status="stopped", epochs=2, passes=150, overrides={"epochs": 8}),
        row("d", status="failed", epochs=0, passes=0, error="no"),
    ]
    totals = build_report(write(tmp_path, rows)).totals
    assert (totals.num_finished, totals.num_stopped, totals.num_failed) == (1, 2, 1)
    assert totals.passes == 2 * 650
    # b would take 4 epochs of 100, c 8 epochs of 75, forward and backward.
    assert totals.full_passes == 2 * (400 + 4 * 100 + 8 * 75)
    assert totals.saved == pytest.approx(1 - 650 / 1400)
    assert totals.train_s == 1.5 * (4 + 1 + 2)
    page = words_of(page_of(build_report(tmp_path)))
    assert "4 trials ended: 1 finished, 2 stopped early and 1 failed." in page
    assert "saved an estimated 54 % of the passes" in page
    assert "The sweep is running or was interrupted" in page


def test_importance_finds_what_decides(tmp_path: Path) -> None:
    report = build_report(write(tmp_path, search(24)))
    by_name = {one.name: one.share for one in report.importance.parameters}
    assert by_name["objective.alpha"] > 0.7
    assert abs(by_name["schedule"]) < 0.15
    assert report.importance.num_trials == 24
    few = build_report(write(tmp_path / "few", search(5)))
    assert few.importance.parameters == []
    assert "Not shown: 5 ended trials have the metric, and at least 8 are needed." in words_of(page_of(few))


def test_the_page_shows_every_section_and_every_trial(tmp_path: Path) -> None:
    report = build_report(write(tmp_path, search(12), summary(finalists=["000", "baseline"])))
    page = page_of(report)
    for name in ("front", "best", "parallel", "importance", "alpha", "cost", "trials"):
        assert page.count(f'<h2 id="{name}">') == 1
    # all trials, near the front twice, parallel, importance, alpha twice, cost
    assert page.count('<figure class="chart">') == 8
    assert page.count("<svg") == 8
    specs = [json.loads(s) for s in re.findall(r'class="chart-spec">(.*?)</script>', page, re.DOTALL)]
    alpha = next(s for s in specs if "alpha on a logarithmic scale" in s["description"])
    assert alpha["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"
    for trial in report.trials:
        assert f"<bdi>{trial.trial}</bdi>" in page
    words = words_of(page)
    assert "asha: below the best half" in words
    assert "TrainingError: loss is not finite" in words
    assert "Traceback" not in words
    assert "gradual(epochs_per_group=1)" in words
    assert "objective.adversary: none" in words


def test_markdown_and_csv_hold_the_same(tmp_path: Path) -> None:
    report = build_report(write(tmp_path, search(9)))
    rows = {
        r["trial"]: r for r in csv.DictReader(io.StringIO((report.page.parent / "trials.csv").read_text()))
    }
    assert list(rows) == sorted(trial.trial for trial in report.trials)
    ledger = {row.trial: row for row in search(9)}
    for name, found in rows.items():
        expected = ledger[name]
        assert found["status"] == expected.status
        assert float(found[ROBUST] or -1) == expected.metrics.get(f"best/{ROBUST}", -1)
        if "objective.alpha" in expected.overrides:
            assert float(found["objective.alpha"]) == expected.overrides["objective.alpha"]
    assert {name for name, found in rows.items() if found["is_on_front"] == "True"} == set(report.front)
    markdown = (report.page.parent / "sweep.md").read_text()
    for trial in report.trials:
        assert f"| {trial.trial} | {trial.status} |" in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert all(re.search(r"[^\\]\|$", line) for line in tables)


# --- the best recipes -------------------------------------------------------------------------


def test_best_recipes_run_again(tmp_path: Path, tiny_recipe: Any) -> None:
    folder = tmp_path / "sweep"
    rows = []
    for name, alpha, robust in (("000", 0.1, 0.5), ("001", 0.3, 0.7), ("002", 0.2, 0.6)):
        recipe = tiny_recipe(objective__alpha=alpha).model_copy(update={"name": f"tiny-{name}"})
        run = folder / "trials" / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe.resolved()))
        rows.append(
            row(name, (0.9, robust, 0.9), recipe_hash=recipe.hash, overrides={"objective.alpha": alpha})
        )
    report = build_report(write(folder, rows, summary(finalists=["001", "002"])))
    assert [(one.file, one.why) for one in report.best] == [
        ("best/1-001.yaml", "finalist, on the Pareto front"),
        ("best/2-002.yaml", "finalist"),
    ]
    assert report.problems == []
    first = report.page.parent / report.best[0].file
    assert load_recipe(first).hash == rows[1].recipe_hash
    assert load_recipe(first).objective.alpha == 0.3
    header = [line for line in first.read_text().splitlines() if line.startswith("#")]
    assert "robust 70.0 %" in header[1]
    assert header[-1] == f"#   temper train {first}"
    assert report.best[0].command in words_of(page_of(report))


def test_recipes_of_former_reports_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = write(tmp_path, [row("a", (0.9, 0.5, 0.9)), row("b", (0.5, 0.9, 0.5))])
    best = build_report(folder).page.parent / "best"
    (best / "notes.yaml").write_text("mine: 1\n")
    assert {p.name for p in best.iterdir()} == {"1-b.yaml", "2-a.yaml", "notes.yaml"}
    write(folder, [row("a", (0.9, 0.95, 0.9)), row("b", (0.5, 0.9, 0.5))])
    build_report(folder)
    assert {p.name for p in best.iterdir()} == {"1-a.yaml", "notes.yaml"}


def test_what_changed_on_its_way_is_said_of_a_best_recipe(tmp_path: Path) -> None:
    note = "took over from others 2 times, see lineage.jsonl"
    report = build_report(write(tmp_path, [row("a", (0.9, 0.5), reason=note)]))
    assert note in report.best[0].why
    assert note in (report.page.parent / "best/1-a.yaml").read_text()
    assert words_of(page_of(report)).count(note) == 2


def test_a_recipe_that_is_gone_comes_from_the_sweeps_own(tmp_path: Path) -> None:
    rows = [row("a", (0.9, 0.5), overrides={"objective.alpha": 0.25})]
    report = build_report(write(tmp_path, rows, recipe={"name": "tiny", "objective": {"alpha": 0.1}}))
    text = (report.page.parent / "best/1-a.yaml").read_text()
    assert yaml.safe_load(text)["objective"] == {"alpha": 0.25}
    (tmp_path / "recipe.yaml").unlink()
    bare = build_report(tmp_path)
    assert bare.best == []
    assert any("its recipe is missing" in problem for problem in bare.problems)


# --- under the suite --------------------------------------------------------------------------


def share(count: int, low: float, high: float) -> dict[str, Any]:
    return {"value": count / 10, "low": low, "high": high, "count": count, "total": 10}


def evaluation(robust: dict[str, Any], status: str) -> EvaluationRecord:
    """A finalist's record, with what a report reads and little else."""
    whole = share(9, 0.6, 1.0)
    cost = dict.fromkeys(("train_s", "evaluate_s", "gpu_s"), 7.0)
    cost |= {f"num_{verb}_{way}": 5 for verb in ("train", "evaluate") for way in ("forward", "backward")}
    data = {"name": "digits", "fingerprint": "f", "classes": ["a"], "split": "test", "num_images": 10}
    document = {
        "name": "m", "created": "2026-01-01T00:00:00Z", "status": status, "seed": 0, "recipe_hash": "h",
        "recipe": {}, "data": {**data, "image_size": 8}, "source": None, "threat": {"eps": 0.1},
        "suite": {"name": "standard", "version": 2, "hash": "s"}, "clean_acc": whole, "robust_acc": robust,
        "balanced_acc": 0.9, "robust_balanced_acc": 0.5, "auroc": None, "source_acc": whole,
        "source_retention": None, "per_class": {}, "attacks": [], "gates": [],
        "promises": {
            "adaptability": None, "consistency": None, "robustness": {"robust_acc": 0.5, "retained": 0.5},
        },
        "model": {"backbone": "resnet8", "num_params": 1, "num_trained_params": 1},
        "cost": {**cost, "device": "cpu"}, "environment": {}, "files": {},
    }  # fmt: skip
    return EvaluationRecord.model_validate(document)


def test_finalists_stand_beside_the_suite(tmp_path: Path) -> None:
    """Five models that validation ranks the other way round than the suite; one of them is blocked."""
    rows = [row("baseline", (0.99, 0.01, 0.9))]
    for index, name in enumerate(("000", "001", "002", "003", "004", "baseline")):
        record = evaluation(share(9 - index, 0.8 - index / 10, 0.95), "blocked" if index == 4 else "ok")
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "record.json").write_text(record.model_dump_json())
        if name != "baseline":
            rows.append(row(name, (0.9, 0.1 + index / 10, 0.8)))
    report = build_report(write(tmp_path, rows, summary(finalists=["000", "001", "002", "003", "004"])))
    assert report.proxy is not None
    assert (report.proxy.num_models, report.proxy.kendall) == (4, -1)
    words = words_of(page_of(report))
    assert "ranks models differently from the suite" in words
    assert "robust accuracy under the suite is -1.00 (Kendall" in words
    assert "blocked by a gate" in words
    assert "90.0 90.0 80.0 to 95.0 90.0 standard 2" in words
    assert "evaluating 6 models with the suite took 42 s" in words
    assert '<h2 id="proxy">' in page_of(report)
    best = report.page.parent / "best"
    assert "clean 90.0 %, robust 90.0 % (80.0 to 95.0)" in (best / "1-000.yaml").read_text()
    assert "Suite" not in (best / "5-004.yaml").read_text()


def test_another_metric_is_not_held_against_the_suite(tmp_path: Path) -> None:
    run = tmp_path / "trials/a"
    run.mkdir(parents=True)
    (run / "record.json").write_text(evaluation(share(5, 0.2, 0.8), "ok").model_dump_json())
    report = build_report(write(tmp_path, [row("a", (0.9, 0.5))], summary(metric=CLEAN)))
    assert report.proxy is None
    assert '<h2 id="proxy">' not in page_of(report)


def test_the_agreement_that_the_sweep_recorded_is_told(tmp_path: Path) -> None:
    proxy = {"num_models": 6, "kendall": 0.8, "spearman": 0.9, "warning": None}
    report = build_report(write(tmp_path, [row("a", (0.9, 0.5))], summary(proxy=proxy)))
    assert report.proxy is not None
    assert report.proxy.kendall == 0.8
    assert "Over the 6 models evaluated with the suite" in words_of(page_of(report))


# --- the same, and hostile, and little --------------------------------------------------------


def test_same_trials_same_bytes_in_any_order_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = search(6)
    places = {}
    for name, order in (("one", rows), ("two", rows[::-1])):
        here = tmp_path / name
        here.mkdir()
        monkeypatch.chdir(here)
        write(Path("sweep"), order, summary(finalists=["000"]))
        build_report(Path("sweep"))
        places[name] = files_of(here / "sweep/report")
    assert set(places["one"]) >= {"sweep.html", "sweep.md", "trials.csv", "best/1-000.yaml"}
    assert places["one"] == places["two"]


def hostile() -> list[LedgerRow]:
    overrides: dict[str, Any] = {
        "objective.alpha": 0.1,
        EVIL: EVIL,
        "=1+1": "=cmd()",
        "a.eps": [1, {"b": EVIL}],
    }
    return [
        row(EVIL, (0.9, 0.5, 0.9), overrides=overrides, reason=EVIL),
        row("../../../etc", (0.8, 0.6, 0.9), overrides={**overrides, "objective.alpha": 0.2, EVIL: True}),
        row("c", (0.7, 0.4, 0.9), status="failed", error=EVIL, overrides={EVIL: None}),
        row("d", (0.7, 0.4, 0.9), status="stopped", reason=EVIL, overrides={"objective.alpha": EVIL}),
    ]


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    folder = write(tmp_path, hostile(), summary(name=EVIL), {"name": EVIL, "epochs": 4})
    report = build_report(folder)
    page = page_of(report)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert set(re.findall(r"<script(.*?)>", page)) == {' type="application/json" class="chart-spec"'}
    out = report.page.parent
    assert {p.parent for p in out.rglob("*.yaml")} == {out / "best"}
    for file in out.rglob("*.yaml"):
        text = file.read_text()
        assert yaml.safe_load(text)["name"] == EVIL
        assert text.count("\n#   temper train ") == 1
    assert "<script" not in (out / "sweep.md").read_text()
    cells = next(csv.reader(io.StringIO((out / "trials.csv").read_text())))
    assert "'=1+1" in cells


def test_little_is_told_too(tmp_path: Path) -> None:
    nothing = build_report(write(tmp_path / "nothing", []))
    assert "No trial has ended yet." in words_of(page_of(nothing))
    assert "<svg" not in page_of(nothing)
    one = build_report(write(tmp_path / "one", [row("000", (0.9, 0.5, 0.8))]))
    assert one.front == ["000"]
    assert [b.trial for b in one.best] == ["000"]
    failed = [row(f"00{i}", status="failed", error="boom", epochs=0, cost={}) for i in range(3)]
    none = build_report(write(tmp_path / "failed", failed, summary(num_finished=0, num_failed=3)))
    words = words_of(page_of(none))
    assert "3 trials ended: none finished, none stopped early and 3 failed." in words
    assert (none.best, none.front, none.hypervolume, none.proxy) == ([], [], None, None)
    assert "<svg" not in page_of(none)
    assert words.count("boom") == 3


def test_without_a_robust_metric(tmp_path: Path) -> None:
    rows = [row(f"{i}", (), metrics={f"best/{CLEAN}": 0.8 + i / 100, "epoch": 4}) for i in range(4)]
    report = build_report(write(tmp_path, rows))
    assert report.objectives == [CLEAN]
    assert report.front == []
    assert "fewer than two objectives were measured" in words_of(page_of(report))
    assert len(report.best) == 3


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        RecordError, match=r"ledger.jsonl: no such ledger; create one with `temper sweep RECIPE SPACE"
    ):
        build_report(tmp_path)
    folder = write(tmp_path, [row("000", (0.9, 0.5))])
    (folder / "sweep.json").write_text("{")
    (folder / "space.yaml").write_text("[")
    (folder / "trials/000").mkdir(parents=True)
    (folder / "trials/000/record.json").write_text('{"schema_version": 0}')
    report = build_report(folder)
    assert len(report.problems) == 3
    told = "\n".join(report.problems)
    for part in ("sweep.json: cannot be read", "space.yaml", "trials/000/record.json: schema version 0"):
        assert part in told
    assert str(folder) not in told
    assert "sweep.json: cannot be read" in words_of(page_of(report))
    (folder / "ledger.jsonl").write_text("{}\n")
    with pytest.raises(RecordError, match="line 1: not a ledger row"):
        build_report(folder)


def test_a_trial_that_was_taken_up_again_has_its_last_row(tmp_path: Path) -> None:
    rows = [row("a", status="failed", error="killed"), row("a", (0.9, 0.5, 0.9))]
    report = build_report(write(tmp_path, rows))
    assert [(trial.trial, trial.status) for trial in report.trials] == [("a", "finished")]


# --- parts ------------------------------------------------------------------------------------


def test_parameters_are_flattened() -> None:
    assert flatten(3) == 3
    assert flatten(True) == "true"
    assert flatten(None) == "none"
    assert flatten({"kind": "full"}) == "full"
    assert flatten({"kind": "pgd", "eps": 0.1, "steps": 5}) == "pgd(eps=0.1, steps=5)"
    assert flatten([1, 2]) == "[1, 2]"
    assert flatten(float("inf")) == "inf"
    assert short_names(["objective.adversary.eps", "threat.eps", "schedule"]) == {
        "objective.adversary.eps": "adversary.eps", "threat.eps": "threat.eps", "schedule": "schedule",
    }  # fmt: skip
    assert short_names(["eps", "threat.eps"]) == {"eps": "eps", "threat.eps": "threat.eps"}


def test_axes_run_from_the_least_to_the_largest() -> None:
    linear = build_axis("x", {"a": 1.0, "b": 3.0, "c": 5.0, "d": None}, is_log=False)
    assert linear.places == {"a": 0, "b": 0.5, "c": 1, "d": ABSENT}
    assert linear.ticks == [(0, "1"), (0.5, "3"), (1, "5"), (ABSENT, "absent")]
    log = build_axis("x", {"a": 0.01, "b": 0.1, "c": 1.0}, is_log=True)
    assert log.places == {"a": 0, "b": 0.5, "c": 1}
    many = build_axis("x", {str(i): float(i) for i in range(11)}, is_log=False)
    assert many.ticks == [(0, "0"), (0.5, "5"), (1, "10")]
    texts = build_axis("x", {"a": "lp_ft", "b": "full", "c": 2}, is_log=False)
    assert texts.ticks == [(0, "2"), (0.5, "full"), (1, "lp_ft")]


def test_the_front_is_the_tradeoffs_front(tmp_path: Path) -> None:
    rows = search(30, seed=4)
    report = build_report(write(tmp_path, rows))
    finished = [r for r in rows if r.status == "finished" and r.trial != "baseline"]
    points = [[r.metrics[f"best/{name}"] for name in (CLEAN, ROBUST, SOURCE)] for r in finished]
    assert set(report.front) == {finished[index].trial for index in pareto_front(points)}


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("kind", ["plain", "hostile"])
def test_in_a_browser_charts_live_and_nothing_is_asked_for(browser: Any, tmp_path: Path, kind: str) -> None:
    rows = search(8) if kind == "plain" else hostile()
    report = build_report(write(tmp_path, rows, summary(finalists=["000", "baseline"])))
    said: list[str] = []
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append("dialog"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.page.as_uri())
    num_charts = page.locator(".chart").count()
    assert num_charts >= (8 if kind == "plain" else 3)
    for index in range(num_charts):
        page.locator(".chart").nth(index).scroll_into_view_if_needed()
        page.locator(".chart").nth(index).locator(".chart-live svg").wait_for(timeout=10_000)
    assert page.locator(".chart-picture:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert said == []
    assert asked == [report.page.as_uri()]
    page.close()


def test_the_page_is_accessible_and_readable_without_javascript(browser: Any, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    report = build_report(write(tmp_path, search(7), summary(finalists=["000"])))
    page = browser.new_page()
    page.goto(report.page.as_uri())
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        problems = axe.run(page).response["violations"]
        assert [(p["id"], [n["html"][:200] for n in p["nodes"]]) for p in problems] == []
    page.close()
    still = browser.new_context(java_script_enabled=False).new_page()
    still.goto(report.page.as_uri())
    assert still.locator(".chart-picture svg:visible").count() == 7
    assert still.locator("table").count() == 2
    still.context.close()
