"""What is computed from the runs of a cross-validation, and what is refused before one starts."""

import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from temper.cluster.crossval import CrossvalSpec
from temper.cluster.crossval.pages import draw_plot, markdown_table
from temper.cluster.crossval.plan import open_targets, plan
from temper.cluster.crossval.summary import measure_spread, measures_over_targets
from temper.data import write_shards
from temper.errors import RecipeError, RecordError
from temper.records import CrossvalFolder, CrossvalRecord, FoldRun, TargetSummary, read_crossval
from temper.spec import Threat
from temper.statistics import corrected_interval


def run_of(fold: int, seed: int, clean: float, robust: float, **changes: Any) -> FoldRun:
    values = {"status": "ok", "clean_acc": clean, "robust_acc": robust, "balanced_acc": clean}
    return FoldRun(target="t", fold=fold, seed=seed, **values | {"robust_balanced_acc": robust} | changes)


RUNS = [
    run_of(0, 0, 0.90, 0.40),
    run_of(0, 1, 0.92, 0.44),
    run_of(1, 0, 0.80, 0.30),
    run_of(1, 1, 0.84, 0.38),
    run_of(2, 0, 0.88, 0.45),
    run_of(2, 1, 0.86, 0.41),
]


def test_the_interval_is_student_s_with_the_corrected_variance() -> None:
    values, ratio = [0.70, 0.74, 0.69, 0.78, 0.75], 0.25
    interval = corrected_interval(values, ratio)
    scale = statistics.stdev(values) * math.sqrt(1 / 5 + ratio)
    low, high = stats.t.interval(0.95, 4, loc=statistics.mean(values), scale=scale)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
    naive = stats.t.interval(0.95, 4, loc=statistics.mean(values), scale=stats.sem(values))
    assert high - low == pytest.approx((naive[1] - naive[0]) * math.sqrt(1 + 5 * ratio))
    uncorrected = corrected_interval(values, 0.0)
    assert (uncorrected.low, uncorrected.high) == pytest.approx(naive, abs=1e-12)


def test_the_interval_stays_within_0_and_1_and_needs_two_folds() -> None:
    interval = corrected_interval([0.0, 1.0], 1.0)
    assert (interval.low, interval.high) == (0.0, 1.0)
    single = measure_spread(RUNS[:2], "clean_acc", 0.5)
    assert single is not None
    assert (single.interval, single.std_folds) == (None, None)
    assert single.std_seeds == pytest.approx(statistics.stdev([0.90, 0.92]))


def test_folds_and_seeds_are_averaged_apart() -> None:
    spread = measure_spread(RUNS, "robust_acc", 0.5)
    assert spread is not None
    folds, seeds = [0.42, 0.34, 0.43], [(0.40 + 0.30 + 0.45) / 3, (0.44 + 0.38 + 0.41) / 3]
    assert spread.mean == pytest.approx(statistics.mean(folds))
    assert spread.std_folds == pytest.approx(statistics.stdev(folds))
    assert spread.std_seeds == pytest.approx(statistics.stdev(seeds))
    half = stats.t.ppf(0.975, 2) * statistics.stdev(folds) * math.sqrt(1 / 3 + 0.5)
    assert spread.interval is not None
    assert spread.interval.high - spread.mean == pytest.approx(half)


def test_runs_that_are_blocked_or_failed_do_not_count() -> None:
    failed = FoldRun(target="t", fold=1, seed=1, status="failed", error="x")
    runs = [*RUNS[:3], failed, RUNS[4], run_of(2, 1, 1.0, 1.0, status="blocked")]
    spread = measure_spread(runs, "clean_acc", 0.5)
    assert spread is not None
    assert spread.mean == pytest.approx(statistics.mean([0.91, 0.80, 0.88]))
    assert measure_spread([failed], "clean_acc", 0.5) is None


def target_of(name: str, runs: list[FoldRun]) -> TargetSummary:
    spreads = {measure: measure_spread(runs, measure, 0.5) for measure in ("clean_acc", "robust_acc")}
    spreads |= {
        measure: measure_spread(runs, measure, 0.5) for measure in ("balanced_acc", "robust_balanced_acc")
    }
    return TargetSummary(
        target=name,
        path=name,
        fingerprint="0",
        num_images=90,
        num_copies=0,
        test_to_train=0.5,
        num_ok=sum(run.status == "ok" for run in runs),
        num_blocked=0,
        num_failed=sum(run.status == "failed" for run in runs),
        measures={measure: spread for measure, spread in spreads.items() if spread is not None},
    )


def test_targets_count_once_each() -> None:
    other = [run.model_copy(update={"target": "u", "clean_acc": 0.5}) for run in RUNS[:2]]
    targets = [target_of("t", RUNS), target_of("u", other)]
    over = measures_over_targets(targets)
    means = [statistics.mean([0.91, 0.82, 0.87]), 0.5]
    assert over["clean_acc"].mean == pytest.approx(statistics.mean(means))
    assert over["clean_acc"].std == pytest.approx(statistics.stdev(means))
    assert measures_over_targets(targets[:1]) == {}
    failed = [FoldRun(target="v", fold=0, seed=0, status="failed", error="x")]
    assert measures_over_targets([*targets, target_of("v", failed)]) == {}


def record_of(targets: list[TargetSummary], runs: list[FoldRun], *, by_site: bool = False) -> CrossvalRecord:
    return CrossvalRecord(
        name="tiny",
        created="2025-01-01T00:00:00+00:00",
        recipe_hash="0" * 16,
        recipe={},
        threat=Threat(eps=0.1),
        folds=3,
        fold_seed=0,
        keep_test=False,
        by_site=by_site,
        seeds=[0, 1],
        targets=targets,
        runs=runs,
        seconds=1.0,
        environment={},
    )


def test_pages_show_what_the_record_says(tmp_path: Path) -> None:
    failed = FoldRun(target="u", fold=0, seed=0, status="failed", error="TrainingError: a | b")
    record = record_of([target_of("t", RUNS), target_of("u", [failed])], [*RUNS, failed])
    lines = markdown_table(record).splitlines()
    assert "| t | 2 | 1 | 84.0 | 38.0 | ok |" in lines
    assert "| u | 1 | 0 | – | – | failed: TrainingError: a \\| b |" in lines
    assert any(line.startswith("| t | robust | 39.7 |") for line in lines)
    draw_plot(record, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        pixels = {tuple(pixel) for pixel in np.asarray(plot.convert("RGB")).reshape(-1, 3).tolist()}
    assert {(0x21, 0x66, 0xAC), (0xC2, 0x41, 0x0C)} <= pixels
    (tmp_path / "crossval.json").write_text(record.model_dump_json())
    assert read_crossval(tmp_path / "crossval.json") == record
    with pytest.raises(RecordError, match="no such record; create one with `temper crossval RECIPE`"):
        read_crossval(tmp_path / "nothing.json")


def test_pages_of_sites_name_them(tmp_path: Path) -> None:
    names = ["Halle", "Kiel", "a university hospital with a long name"]
    runs = [run.model_copy(update={"site": names[run.fold]}) for run in RUNS]
    record = record_of([target_of("t", runs)], runs, by_site=True)
    page = markdown_table(record)
    assert "3 sites, each left out once, seeds 0, 1" in page
    assert "| target | site | seed |" in page
    assert "| t | Kiel | 1 | 84.0 | 38.0 | ok |" in page
    draw_plot(record, tmp_path / "plot.png")
    draw_plot(record.model_copy(update={"by_site": False, "runs": RUNS}), tmp_path / "folds.png")
    assert (tmp_path / "plot.png").read_bytes() != (tmp_path / "folds.png").read_bytes()


# --- before anything is started ---------------------------------------------------------------


def planned(recipe: Any, **changes: Any) -> Any:
    spec = CrossvalSpec(**{"folds": 3, "seeds": 2, **changes})
    return plan(recipe.resolved(), spec, open_targets(spec, recipe), where="recipe", group="g")


def test_every_run_has_its_recipe_its_fold_and_its_seed(tiny_recipe: Any) -> None:
    runs = planned(tiny_recipe(seed=7))
    assert [(run.seed, run.fold) for run in runs] == [(7, 0), (7, 1), (7, 2), (8, 0), (8, 1), (8, 2)]
    assert len({run.recipe.hash for run in runs}) == 6
    assert len({run.images.fingerprint for run in runs}) == 3, "the folds are the same for all seeds"
    assert {run.recipe.data.fold.seed for run in runs} == {7}
    assert {run.recipe.tracking.group for run in runs} == {"g"}
    assert runs[4].recipe.name == "tiny-fold-2-seed-8"


def test_folds_are_counted_from_one_and_earlier_folders_are_found(tmp_path: Path) -> None:
    folder = CrossvalFolder(tmp_path)
    assert folder.run("t", 0, 4).path.name == "fold-1_seed-4"
    assert folder.run("t", 1, 4).path.name == "fold-2_seed-4"
    (tmp_path / "t/fold-1-seed-4").mkdir(parents=True)
    assert folder.run("t", 1, 4).path.name == "fold-1-seed-4", "of a version that counted from 0"
    assert folder.run("t", 0, 4).path.name == "fold-1_seed-4"


def test_each_site_is_a_fold(tiny_recipe: Any, digits: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"by_site: .* has 0 sites, expected at least two"):
        planned(tiny_recipe(), by_site=True)
    images = tmp_path / "images"
    shutil.copytree(digits["images"], images)
    files = sorted(path for path in images.rglob("*") if path.suffix == ".png")
    rows = [f"{path.relative_to(images)},{'nws'[index % 3]}" for index, path in enumerate(files)]
    (images / "metadata.csv").write_text("\n".join(["file_name,site", *rows]) + "\n")
    write_shards(images, tmp_path / "shards")
    recipe = tiny_recipe(data__target=str(tmp_path / "shards"), data__source=None, objective__alpha=0)
    runs = planned(recipe, by_site=True, seeds=1)
    assert [run.site for run in runs] == ["n", "s", "w"]
    assert [run.recipe.data.fold.by_site for run in runs] == [True] * 3
    for run in runs:
        site_of = run.images.column("site")
        assert {site_of[row] for row in run.images.rows("test")} == {run.site}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__fold": {"index": 0, "count": 2}}, "'data.fold': a cross-validation sets the fold itself"),
        ({"seed": 2**31 - 1}, "'seed': 2 seeds from 2147483647 on exceed"),
        ({"data__shots_per_class": 500}, "shots_per_class: got 500"),
        ({"schedule": {"kind": "last_k", "k": 9}}, "k is 9, this model has 5 groups"),
    ],
)
def test_what_cannot_end_well_is_refused(change: dict[str, Any], message: str, tiny_recipe: Any) -> None:
    with pytest.raises(RecipeError, match=message):
        planned(tiny_recipe(**change))


def test_images_that_are_source_images_too_are_refused(tiny_recipe: Any, digits: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match=r"\d+ images of .* are training images of the source .* too"):
        planned(tiny_recipe(), targets=(digits["source"],))
    with pytest.raises(RecipeError, match="given twice"):
        planned(tiny_recipe(), targets=(digits["target"], digits["target"]))
    alone = tiny_recipe(data__source=None, objective__alpha=0)
    both = planned(alone, targets=(digits["target"], digits["source"]))
    assert {run.target for run in both} == {"target", "source"}
    assert both[-1].recipe.name == "tiny-source-fold-3-seed-1"
