import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from temper.cli import main
from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.errors import RecipeError, RecordError, TemperError
from temper.records import read_record


def test_record_and_outcomes_agree(evaluated_run: Path) -> None:
    record = read_record(evaluated_run / "record.json")
    outcomes = pq.read_table(evaluated_run / "outcomes.parquet")
    assert record.clean_acc.count == sum(outcomes["correct"].to_pylist())
    assert record.robust_acc.count == sum(outcomes["robust"].to_pylist())
    assert record.robust_acc.low < record.robust_acc.value < record.robust_acc.high
    assert record.attacks[-1].robust_acc_after == record.robust_acc.value
    assert record.promises.adaptability is not None
    assert record.promises.consistency is not None
    assert record.promises.robustness.robust_acc == record.robust_acc.value
    assert record.source_acc is not None
    assert record.metrics is not None
    clean, robust = record.metrics.clean, record.metrics.robust
    assert (clean.balanced_acc, clean.auroc) == (record.balanced_acc, record.auroc)
    assert robust.balanced_acc == record.robust_balanced_acc
    for metrics in (clean, robust):
        assert metrics.auroc is not None
        assert all(0 <= value <= 1 for value in (metrics.macro_f1, metrics.auroc, metrics.ece))
    assert robust.macro_f1 < clean.macro_f1
    assert robust.auroc is not None
    assert clean.auroc is not None
    assert robust.auroc < clean.auroc
    for file in record.files.values():
        assert hashlib.sha256((evaluated_run / file.path).read_bytes()).hexdigest() == file.sha256
    assert {"temper", "torch", "foolbox", "ray"} <= set(record.environment["packages"])


TIMES = {"created", "train_s", "evaluate_s", "gpu_s", "seconds", "environment", "sha256", "name"}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_same_seed_same_record_but_for_times(evaluated_run: Path, tiny_recipe: Any, tmp_path: Path) -> None:
    launch(tiny_recipe(), tmp_path / "again")
    evaluate_run(tmp_path / "again")
    first, again = (
        json.loads((run / "record.json").read_text()) for run in (evaluated_run, tmp_path / "again")
    )
    assert without_times(first) == without_times(again)
    assert first["files"]["checkpoint"]["sha256"] == again["files"]["checkpoint"]["sha256"]
    assert first["files"]["outcomes"]["sha256"] == again["files"]["outcomes"]["sha256"]


def test_a_record_without_metrics_still_reads(evaluated_run: Path, tmp_path: Path) -> None:
    """As temper wrote it before it had more metrics than accuracy."""
    document = json.loads((evaluated_run / "record.json").read_text())
    del document["metrics"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    record = read_record(tmp_path / "record.json")
    assert (record.schema_version, record.metrics) == (1, None)


def test_a_record_is_never_overwritten(evaluated_run: Path) -> None:
    before = (evaluated_run / "record.json").read_bytes()
    with pytest.raises(RecordError, match="a record is never overwritten; pass --out"):
        evaluate_run(evaluated_run)
    assert (evaluated_run / "record.json").read_bytes() == before


def test_no_run_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=str(tmp_path)):
        evaluate_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "overrides",
    [
        {"optim.lr": 3.0},
        {"seed": 7},
        {"data.batch_size": 8},
        {"objective": {"alpha": 0.0, "adversary": None}},
    ],
    ids=["rate", "seed", "batch", "block"],
)
def test_an_evaluation_does_not_say_that_a_run_was_trained_otherwise(
    evaluated_run: Path, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    (name,) = overrides
    with pytest.raises(RecipeError, match=rf"{name}: the run .* is trained already, so this has no effect"):
        evaluate_run(evaluated_run, overrides, out=tmp_path / "out")
    assert not (tmp_path / "out/record.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "RUN", "--eps", "8/255"], "--set threat.eps=8/255"),
        (["evaluate", "RUN", "--norm", "l2"], "--set threat.norm=l2"),
        (["evaluate", "RUN", "--size", "32"], "--size is for models that are not runs"),
        (["verify", "RUN", "--shallow", "--sample", "8"], "--shallow runs no model"),
        (["verify", "RUN", "--shallow", "--model", "zoo:build"], "--shallow runs no model"),
        (["leaderboard", "RUN", "--project", "signs"], "--project is that of W&B"),
    ],
)
def test_an_option_without_effect_is_an_error(
    evaluated_run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(evaluated_run) if word == "RUN" else word for word in words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_folder_that_is_no_run_is_told_so_whatever_the_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path), "--eps", "8/255"])
    assert "no run here (no recipe.yaml)" in capsys.readouterr().err.replace("\n", " ")


def test_a_name_that_is_markup_or_commands_a_terminal_is_shown_as_text(
    evaluated_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(evaluated_run, copy)
    document = json.loads((copy / "record.json").read_text())
    (copy / "record.json").write_text(json.dumps({**document, "name": "[/x]\x1b[31m\u061cred"}))
    with pytest.raises(SystemExit):
        main(["verify", "--shallow", str(copy)])
    seen = capsys.readouterr()
    assert "[/x]" in seen.out
    with pytest.raises(SystemExit):
        main(["leaderboard", str(copy), "--out", str(tmp_path / "board")])
    seen_too = capsys.readouterr()
    files = [(tmp_path / "board" / name).read_text() for name in ("leaderboard.md", "leaderboard.csv")]
    for text in (seen.out, seen.err, seen_too.out, seen_too.err, *files):
        assert "\x1b[31m" not in text
        assert "\u061c" not in text


def test_links_that_lead_nowhere_are_left_out_with_a_word(
    evaluated_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(evaluated_run, tmp_path / "runs/good")
    for name, place in (("circle", "../circle/record.json"), ("gone", "nowhere.json")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "record.json").symlink_to(place)
    (tmp_path / "runs/folder/record.json").mkdir(parents=True)
    with pytest.raises(SystemExit):
        main(["leaderboard", str(tmp_path / "runs"), "--out", str(tmp_path / "board")])
    seen = capsys.readouterr().err.replace("\n", " ")
    for name in ("circle/record.json", "gone/nowhere.json", "folder/record.json"):
        assert f"left out {tmp_path / 'runs' / name}" in seen
