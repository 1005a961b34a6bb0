import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.errors import RecordError, TemperError
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
