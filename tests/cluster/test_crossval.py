"""A cross-validation on a real Ray cluster: its numbers, what fails, and going on where it was."""

import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from temper.cluster.crossval import CrossvalSpec, crossval
from temper.errors import CheckpointError, TrainingError
from temper.leaderboard.build import build_leaderboard
from temper.records import CrossvalFolder, CrossvalRecord, FoldRun, read_crossval, read_record, sha256_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

SPEC = CrossvalSpec(folds=2, seeds=2)
QUICK = {"epochs": 1, "evaluation__max_images": 32, "validation__max_images": 16}


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Any) -> Any:
    return tiny_recipe(**QUICK, pretrain={"epochs": 1})


@pytest.fixture(scope="module")
def finished(recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CrossvalRecord, list[Any]]:
    """Two folds with two seeds; not to be changed."""
    out = tmp_path_factory.mktemp("crossval") / "cv"
    seen: list[Any] = []
    record = crossval(recipe.resolved(), SPEC, out, on_run=lambda *call: seen.append(call))
    return out, record, seen


def times(out: Path) -> dict[str, int]:
    files = [*out.rglob("model.safetensors"), *out.rglob("record.json")]
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in files}


@pytest.mark.long
def test_the_record_says_what_the_runs_records_say(finished: Any) -> None:
    out, record, seen = finished
    assert read_crossval(out / "crossval.json") == record
    assert [(run.fold, run.seed) for run in record.runs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sorted(call[1:] for call in seen) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    robust: dict[int, list[float]] = {0: [], 1: []}
    for run in record.runs:
        assert run.record is not None
        assert sha256_of(out / run.record.path) == run.record.sha256
        own = read_record(out / run.record.path)
        fold = {"index": run.fold, "count": 2, "seed": 0, "keep_test": False, "by_site": False}
        assert own.recipe["data"]["fold"] == fold
        assert (own.seed, own.status) == (run.seed, run.status)
        assert (own.clean_acc.value, own.robust_acc.value) == (run.clean_acc, run.robust_acc)
        assert (own.data.fingerprint, own.data.num_images) == (run.fingerprint, run.num_images)
        if run.status == "ok":
            robust[run.fold].append(own.robust_acc.value)
    summary = record.targets[0]
    assert summary.num_ok == sum(map(len, robust.values())) == 4, record.runs
    means = [statistics.mean(values) for values in robust.values()]
    spread = summary.measures["robust_acc"]
    assert spread.mean == pytest.approx(statistics.mean(means))
    assert spread.std_folds == pytest.approx(statistics.stdev(means))
    half = stats.t.ppf(0.975, 1) * statistics.stdev(means) * math.sqrt(1 / 2 + summary.test_to_train)
    assert spread.interval is not None
    assert spread.interval.low == pytest.approx(max(0.0, spread.mean - half))
    assert summary.num_images == 896


@pytest.mark.long
def test_seeds_share_their_folds_and_folds_their_pretraining(finished: Any) -> None:
    out, record, _ = finished
    assert len({run.fingerprint for run in record.runs}) == 2
    assert len(list((out / "pretrain").iterdir())) == 2, "one for each seed"
    starts = {
        json.loads((out / f"target/fold-{fold}_seed-1/last/state.json").read_text())["start_weights"]
        for fold in (1, 2)
    }
    assert len(starts) == 1


@pytest.mark.long
def test_the_leaderboard_never_ranks_two_folds_together(finished: Any, tmp_path: Path) -> None:
    out, _, _ = finished
    boards = build_leaderboard([out], tmp_path / "board").boards
    entries = [len(board.entries) + len(board.blocked) for board in boards]
    assert entries == [2, 2]
    assert len({board.fingerprint for board in boards}) == 2


@pytest.mark.long
def test_only_what_is_missing_is_repeated_with_the_same_result(
    recipe: Any, finished: Any, tmp_path: Path
) -> None:
    out, record, _ = finished
    with pytest.raises(CheckpointError, match=r"crossval.json: this cross-validation is finished"):
        crossval(recipe.resolved(), SPEC, out)
    copy = CrossvalFolder(tmp_path / "cv")
    shutil.copytree(out, copy.path)
    copy.record.unlink()
    # One as if it had been killed in its evaluation, one before its first epoch had ended.
    copy.run("target", 0, 1).record.unlink()
    shutil.rmtree(copy.run("target", 1, 0).path)
    copy.run("target", 1, 0).path.mkdir()
    copy.run("target", 1, 0).error.write_text("of the first time\n")
    before = times(copy.path)
    seen: list[FoldRun] = []
    again = crossval(recipe.resolved(), SPEC, copy.path, on_run=lambda run, done, total: seen.append(run))
    assert sorted((run.fold, run.seed) for run in seen) == [(0, 1), (1, 0)]
    after = times(copy.path)
    assert {name for name in after if after[name] != before.get(name)} == {
        "target/fold-1_seed-1/record.json",
        "target/fold-2_seed-0/record.json",
        "target/fold-2_seed-0/checkpoint/model.safetensors",
        "target/fold-2_seed-0/probe/checkpoint/model.safetensors",
    }, "neither the start nor a finished run is trained again"
    assert not copy.run("target", 1, 0).error.exists()
    assert again.targets == record.targets
    assert [run.robust_acc for run in again.runs] == [run.robust_acc for run in record.runs]
    copy.record.unlink()
    with pytest.raises(CheckpointError, match="fold-1_seed-0: holds a run of another recipe"):
        crossval(recipe.resolved(), CrossvalSpec(folds=3, seeds=1), copy.path)


@pytest.mark.long
def test_a_run_that_fails_is_recorded_and_the_others_go_on(tiny_recipe: Any, tmp_path: Path) -> None:
    """Here on the workers of Ray Train, which the tasks wait for."""
    folder = CrossvalFolder(tmp_path / "cv")
    document = tiny_recipe(**QUICK, workers={"num_workers": 1}).resolved()
    spec = CrossvalSpec(folds=2, seeds=1)
    in_the_way = folder.run("target", 1, 0).checkpoint
    in_the_way.mkdir(parents=True)
    record = crossval(document, spec, folder.path)
    good, bad = record.runs
    assert (good.status, bad.status) == ("ok", "failed")
    assert "CheckpointError: " in (bad.error or "")
    assert "holds another run" in (bad.error or "")
    assert bad.clean_acc is bad.record is None
    assert folder.run("target", 1, 0).error.read_text().strip() == bad.error
    assert (record.targets[0].num_ok, record.targets[0].num_failed) == (1, 1)
    spread = record.targets[0].measures["clean_acc"]
    assert (spread.mean, spread.interval, spread.std_folds) == (good.clean_acc, None, None)
    assert "| target | 2 | 0 | – | – | failed: CheckpointError: " in folder.table.read_text()


def test_where_no_run_finishes_there_is_no_record(tiny_recipe: Any, tmp_path: Path) -> None:
    document = tiny_recipe(**QUICK, data__batch_size=16, optim={"lr": 10.0, "weight_decay": 1.0}).resolved()
    with pytest.raises(
        TrainingError, match=r"no run finished \(DivergenceError: .*the (loss|weights) became nan"
    ):
        crossval(document, CrossvalSpec(folds=2, seeds=1), tmp_path / "cv")
    assert not (tmp_path / "cv/crossval.json").exists()
