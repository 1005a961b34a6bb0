import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from temper.cli import main
from temper.cluster.evaluate import evaluate_run
from temper.cluster.launch import launch
from temper.comparison import ComparisonRecord, compare
from temper.errors import RecordError, UsageError
from temper.records import EvaluationRecord, FileRecord, GateRecord, read_record, sha256_of, write_outcomes
from temper.spec import Threat
from temper.statistics import count_cells, mcnemar, newcombe, wilson

NUM_IMAGES = 200


@pytest.fixture
def record(evaluated_run: Path) -> EvaluationRecord:
    return read_record(evaluated_run / "record.json")


def write_model(
    folder: Path,
    record: EvaluationRecord,
    correct: np.ndarray,
    robust: np.ndarray | None = None,
    *,
    rows: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    **changes: Any,
) -> Path:
    """A record with the outcomes that it claims."""
    rows = np.arange(len(correct)) if rows is None else rows
    labels = rows % len(record.data.classes) if labels is None else labels
    robust = correct if robust is None else robust
    columns = {"row": rows, "label": labels, "prediction": labels, "correct": correct, "robust": robust}
    write_outcomes(folder / "outcomes.parquet", pa.table({name: pa.array(c) for name, c in columns.items()}))
    seal(folder, record, int(correct.sum()), int(robust.sum()), len(correct), **changes)
    return folder


def seal(folder: Path, record: EvaluationRecord, right: int, robust: int, total: int, **changes: Any) -> None:
    file = FileRecord(path="outcomes.parquet", sha256=sha256_of(folder / "outcomes.parquet"))
    update = {
        "clean_acc": wilson(right, total),
        "robust_acc": wilson(robust, total),
        "files": {**record.files, "outcomes": file},
        **changes,
    }
    (folder / "record.json").write_text(record.model_copy(update=update).model_dump_json())


def answers(num_right: int, num_images: int = NUM_IMAGES) -> np.ndarray:
    return np.arange(num_images) < num_right


@pytest.fixture(scope="module")
def weak_run(tiny_recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluated on the same images as ``evaluated_run``, but trained on clean images only."""
    folder = tmp_path_factory.mktemp("weak") / "run"
    launch(tiny_recipe(objective__adversary=None, epochs=1), folder)
    evaluate_run(folder)
    return folder


def test_two_runs_are_compared_image_by_image(evaluated_run: Path, weak_run: Path) -> None:
    found = compare(evaluated_run, weak_run)
    a, b = (pq.read_table(run / "outcomes.parquet").to_pydict() for run in (evaluated_run, weak_run))
    assert a["row"] == b["row"]
    assert (found.num_images, len(found.pairs), found.warnings) == (64, 1, [])
    for one, column in ((found.clean, "correct"), (found.robust, "robust")):
        assert one is not None
        pairs = list(zip(a[column], b[column], strict=True))
        counts = [pairs.count(kind) for kind in [(True, True), (True, False), (False, True), (False, False)]]
        assert list(one.cells.model_dump().values()) == counts
        assert one.difference == pytest.approx((sum(a[column]) - sum(b[column])) / 64)
        assert one.p_mid == mcnemar(counts[1], counts[2]).mid
        assert one.interval == newcombe(one.cells)
        assert one.bootstrap.low <= one.difference <= one.bootstrap.high
    for name, measure in [("5", "clean"), ("9", "robust")]:
        (part,) = (one for one in found.per_class if (one.class_name, one.measure) == (name, measure))
        for run, acc in ((evaluated_run, part.acc_a), (weak_run, part.acc_b)):
            assert read_record(run / "record.json").per_class[name][f"{measure}_acc"] == pytest.approx(acc)
    assert found.robust is not None
    family = sorted([found.clean, found.robust], key=lambda one: one.p_mid)
    assert family[0].p_adjusted == pytest.approx(min(1, 2 * family[0].p_mid))
    assert compare(evaluated_run, weak_run) == found
    assert compare(evaluated_run, weak_run, seed=1) != found


def test_sides_may_be_swapped(evaluated_run: Path, weak_run: Path) -> None:
    one, other = compare(evaluated_run, weak_run).robust, compare(weak_run, evaluated_run).robust
    assert one is not None
    assert other is not None
    assert one.difference == -other.difference
    assert (one.interval.low, one.interval.high) == pytest.approx((-other.interval.high, -other.interval.low))
    assert one.p_exact == other.p_exact
    assert one.bootstrap.low == pytest.approx(-other.bootstrap.high, abs=0.02)


def test_other_images_are_left_out_and_told(evaluated_run: Path, tmp_path: Path) -> None:
    evaluate_run(evaluated_run, {"evaluation.max_images": 40}, out=tmp_path / "few")
    found = compare(evaluated_run, tmp_path / "few/record.json")
    a, b = (pq.read_table(run / "outcomes.parquet") for run in (evaluated_run, tmp_path / "few"))
    common = set(a["row"].to_pylist()) & set(b["row"].to_pylist())
    assert 0 < found.num_images == len(common) <= 40
    assert any(f"only the {len(common)} common ones are compared" in line for line in found.warnings)
    # The same weights: no image is right with one of them only.
    assert (found.clean.cells.only_a, found.clean.cells.only_b) == (0, 0)
    assert (found.clean.verdict, found.clean.p_adjusted) == ("no difference shown", 1.0)
    assert found.clean.interval.low < 0 < found.clean.interval.high


def test_images_are_joined_by_row_not_by_place(record: EvaluationRecord, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    right_a, right_b = generator.random((2, NUM_IMAGES)) < 0.7
    order = generator.permutation(NUM_IMAGES)
    a = write_model(tmp_path / "a", record, right_a)
    b = write_model(tmp_path / "b", record, right_b[order], rows=order)
    assert compare(a, b).clean.cells == count_cells(right_a, right_b)


@pytest.mark.parametrize(
    ("right_a", "right_b", "verdict"),
    [(150, 135, "A is better"), (120, 150, "B is better"), (150, 148, "no difference shown")],
)
def test_verdicts(record: EvaluationRecord, tmp_path: Path, right_a: int, right_b: int, verdict: str) -> None:
    a = write_model(tmp_path / "a", record, answers(right_a), answers(100))
    b = write_model(tmp_path / "b", record, answers(right_b), answers(100))
    found = compare(a, b)
    assert found.clean.verdict == verdict
    assert found.robust is not None
    assert found.robust.verdict == "no difference shown"


def test_many_classes_are_corrected_for(record: EvaluationRecord, tmp_path: Path) -> None:
    """Six images of one class differ: 0.016 alone, but not among ten tests."""
    labels = np.repeat(np.arange(5), 40)
    a = write_model(tmp_path / "a", record, answers(200), answers(200), labels=labels)
    b = write_model(tmp_path / "b", record, answers(200), answers(194), labels=labels)
    found = compare(a, b)
    last = found.per_class[-1]
    assert (last.class_name, last.measure, last.cells.only_a) == (record.data.classes[4], "robust", 6)
    assert last.p_mid == pytest.approx(1 / 64)
    assert last.p_adjusted == pytest.approx(10 / 64)
    assert last.verdict == "no difference shown"
    assert found.robust is not None
    assert found.robust.verdict == "A is better"


def seeds(folder: Path, record: EvaluationRecord, right: dict[int, int]) -> Path:
    for seed, count in right.items():
        changes = {"seed": seed, "recipe": {**record.recipe, "seed": seed}}
        write_model(folder / f"seed-{seed}", record, answers(count), **changes)
    return folder


def test_several_seeds_are_paired_by_seed(record: EvaluationRecord, tmp_path: Path) -> None:
    a = seeds(tmp_path / "a", record, {0: 150, 1: 160, 2: 154, 7: 10})
    b = seeds(tmp_path / "b", record, {0: 130, 1: 144, 2: 140})
    found = compare(a, b)
    assert [(pair.a.seed, pair.b.seed) for pair in found.pairs] == [(0, 0), (1, 1), (2, 2)]
    assert [pair.clean.only_a for pair in found.pairs] == [20, 16, 14]
    assert (found.num_images, found.clean.cells.total) == (NUM_IMAGES, 3 * NUM_IMAGES)
    spread = found.clean.over_seeds
    assert spread is not None
    assert spread.mean == pytest.approx(np.mean([0.10, 0.08, 0.07])) == found.clean.difference
    assert spread.std == pytest.approx(np.std([0.10, 0.08, 0.07], ddof=1))
    assert (spread.num_seeds, spread.num_ahead_a, spread.num_ahead_b) == (3, 3, 0)
    assert found.clean.verdict == "A is better"
    assert found.warnings == [
        f"{a / 'seed-7/record.json'} is left out: the other side has no seed 7",
    ]


def test_one_lucky_seed_is_no_better_recipe(record: EvaluationRecord, tmp_path: Path) -> None:
    a = seeds(tmp_path / "a", record, {0: 180, 1: 151, 2: 150})
    b = seeds(tmp_path / "b", record, {0: 130, 1: 150, 2: 150})
    found = compare(a, b).clean
    assert found.p_adjusted < 0.001
    assert found.interval.low > 0
    assert found.over_seeds is not None
    assert found.over_seeds.interval.low < 0
    assert found.verdict == "A is better with these seeds, not shown for others"


def test_seeds_that_all_agree_keep_an_interval(record: EvaluationRecord, tmp_path: Path) -> None:
    a, b = (seeds(tmp_path / name, record, {0: 150, 1: 150}) for name in "ab")
    found = compare(a, b).clean
    assert (found.bootstrap.low, found.bootstrap.high) == (0, 0)
    assert found.interval.low < 0 < found.interval.high


def test_seeds_of_other_recipes_are_told(record: EvaluationRecord, tmp_path: Path) -> None:
    a, b = (seeds(tmp_path / name, record, {0: 150, 1: 150}) for name in "ab")
    shutil.rmtree(b / "seed-1")
    recipe = {**record.recipe, "seed": 1, "epochs": 99}
    write_model(b / "seed-1", record, answers(150), seed=1, recipe=recipe)
    assert compare(a, b).warnings == ["the models of B differ in more of their recipes than the seed"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threat": Threat(eps=0.05)}, r"other threat models \(linf eps 0.1 and linf eps 0.05\)"),
        ({"suite": {"version": 99}}, r"other suites \(quick-linf version \d+, \w+ and quick-linf version 99"),
        ({"suite": {"hash": "0" * 16}}, r"other suites .*0000\); evaluate both alike"),
        ({"data": {"image_size": 64}}, r"other image sizes \(8 px and 64 px\)"),
    ],
    ids=str,
)
def test_robust_accuracy_is_compared_under_the_same_attacks_only(
    record: EvaluationRecord, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    a = write_model(tmp_path / "a", record, answers(150))
    b = write_model(tmp_path / "b", record, answers(120), **changed(record, changes))
    found = compare(a, b)
    assert found.robust_refused is not None
    assert re.search(reason, found.robust_refused)
    assert (found.robust, found.pairs[0].robust, found.threat, found.suite) == (None, None, None, None)
    assert {one.measure for one in found.per_class} == {"clean"}
    assert (found.clean.verdict, found.clean.p_adjusted) == ("A is better", found.clean.p_mid)


def changed(record: EvaluationRecord, changes: dict[str, Any]) -> dict[str, Any]:
    """Dicts are changes of the record's own parts."""
    return {
        name: getattr(record, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"fingerprint": "other"}}, r"evaluated on other data \(digits_target \w+ and .* other\)"),
        ({"data": {"classes": ["a", "b", "c", "d", "e"]}}, r"other classes \(5, 6, 7, 8, 9 and a, b"),
        ({"data": {"split": "val"}}, r"other splits \(test and val\)"),
        ({"clean_acc": wilson(160, NUM_IMAGES)}, r"claims 160 images right .* the record was changed"),
        ({"files": {}}, r"names no outcomes"),
    ],
    ids=str,
)
def test_records_that_cannot_be_compared(
    record: EvaluationRecord, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    a = write_model(tmp_path / "a", record, answers(150))
    update = changes if "files" in changes else changed(record, changes)
    b = write_model(tmp_path / "b", record, answers(120), **update)
    with pytest.raises(RecordError, match=message):
        compare(a, b)
    with pytest.raises(RecordError, match=str(b / "record.json")):
        compare(b, a)


def test_changed_outcomes_are_refused(record: EvaluationRecord, tmp_path: Path) -> None:
    a, b = (write_model(tmp_path / name, record, answers(150)) for name in "ab")
    (b / "outcomes.parquet").unlink()
    with pytest.raises(RecordError, match=r"b/outcomes.parquet: no such file, but .*record.json names it"):
        compare(a, b)
    better = pa.table({"row": [1], "label": [1], "correct": [True], "robust": [True]})
    write_outcomes(b / "outcomes.parquet", better)
    with pytest.raises(RecordError, match=r"not the outcomes that .* was written with \(the SHA-256 differs"):
        compare(a, b)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"robust": None}, "column 'robust' is missing, expected bool"),
        ({"row": ["0", "1", "2"]}, "column 'row' is string, expected int64"),
        ({"label": [0, None, 1]}, "column 'label' is int64, expected int64 without gaps"),
        ({"row": [4, 5, 4]}, "an image occurs twice"),
        ({"label": [0, 1, 5]}, r"a label outside 0..4, the classes of"),
    ],
    ids=str,
)
def test_malformed_outcomes_are_refused(
    record: EvaluationRecord, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    a = write_model(tmp_path / "a", record, answers(3, 3))
    good = {"row": [0, 1, 2], "label": [0, 1, 2], "correct": [True] * 3, "robust": [True] * 3}
    kept = {name: values for name, values in {**good, **columns}.items() if values is not None}
    write_outcomes(tmp_path / "b/outcomes.parquet", pa.table(kept))
    seal(tmp_path / "b", record, 3, 3, 3)
    with pytest.raises(RecordError, match=message):
        compare(a, tmp_path / "b")


def test_damaged_outcomes_are_refused(record: EvaluationRecord, tmp_path: Path) -> None:
    a, b = (write_model(tmp_path / name, record, answers(150)) for name in "ab")
    (b / "outcomes.parquet").write_bytes(b"PAR1 no more")
    seal(b, record, 150, 150, NUM_IMAGES)
    with pytest.raises(RecordError, match="not readable as outcomes"):
        compare(a, b)


def test_no_common_images_or_other_labels(record: EvaluationRecord, tmp_path: Path) -> None:
    a = write_model(tmp_path / "a", record, answers(150))
    far = write_model(tmp_path / "far", record, answers(150), rows=np.arange(NUM_IMAGES) + 500)
    with pytest.raises(RecordError, match="no image in common"):
        compare(a, far)
    other = write_model(tmp_path / "other", record, answers(150), labels=np.zeros(NUM_IMAGES, int))
    with pytest.raises(RecordError, match="the same images have other labels"):
        compare(a, other)


def test_what_is_no_pair_is_refused(record: EvaluationRecord, tmp_path: Path) -> None:
    a = write_model(tmp_path / "a", record, answers(150))
    with pytest.raises(UsageError, match="A and B are the same record; give two"):
        compare(a, a / "record.json")
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        compare(a, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        RecordError, match=r"empty: no record.json found; create one with `temper evaluate RUN`"
    ):
        compare(tmp_path / "empty", a)
    b = seeds(tmp_path / "b", record, {0: 150, 1: 150})
    write_model(b / "again", record, answers(150), seed=1)
    with pytest.raises(UsageError, match=r"b: two records of seed 1 \(.*again.* and .*seed-1"):
        compare(a, b)
    c, d = seeds(tmp_path / "c", record, {1: 9, 2: 9}), seeds(tmp_path / "d", record, {3: 9, 4: 9})
    with pytest.raises(RecordError, match=r"c has seeds 1, 2, .*d has 3, 4: none in common"):
        compare(c, d)


def test_a_blocked_record_takes_part_with_a_warning(
    record: EvaluationRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = GateRecord(name="logits", passed=False, detail="outputs look like probabilities")
    a = write_model(tmp_path / "a", record, answers(150))
    b = write_model(tmp_path / "b", record, answers(120), status="blocked", gates=[gate])
    code, out, err = command(capsys, "compare", a, b)
    assert code == 0
    assert "B is better" not in out
    warning = (
        f"warning: {b / 'record.json'} is blocked, so its numbers can't be trusted (logits: outputs look"
    )
    assert warning in err
    assert compare(a, b).pairs[0].b.status == "blocked"


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[Any, str, str]:
    code: Any = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_shows_writes_and_prints_json(
    record: EvaluationRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_model(tmp_path / "a", record, answers(170), answers(100))
    b = write_model(tmp_path / "b", record, answers(150), answers(104))
    code, out, err = command(capsys, "compare", a, b, "--out", tmp_path / "out")
    assert code == 0
    text = " ".join(out.split())
    assert "clean accuracy: A is better (A - B +10.0 points, p <0.001)" in text
    assert "robust accuracy: no difference shown (A - B -2.0 points, p 0.062)" in text
    assert "20/0" in text
    assert f"comparison: {tmp_path / 'out/compare.md'}" in err
    code, out, _ = command(capsys, "compare", a, b, "--json")
    assert code == 0
    written = json.loads((tmp_path / "out/compare.json").read_text())
    assert json.loads(out) == written
    assert ComparisonRecord.model_validate(written) == compare(a, b)
    page = (tmp_path / "out/compare.md").read_text()
    assert "| clean | 85.0 | 75.0 | +10.0 (" in page
    assert "| robust, Linf 0.1 | 50.0 | 52.0 | -2.0 (" in page
    # Two tables with a head and a rule each.
    assert page.count("\n| ") == 2 * 2 + 2 + 2 * len(record.data.classes)


def test_the_page_of_several_seeds_and_hostile_names(
    record: EvaluationRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = record.data.model_copy(update={"classes": ["<script>|`", *record.data.classes[1:]]})
    hostile = record.model_copy(update={"data": data})
    a = seeds(tmp_path / "a", hostile, {0: 150, 1: 160})
    b = seeds(tmp_path / "b", hostile, {0: 130, 1: 144})
    code, out, _ = command(capsys, "compare", a, b, "--out", tmp_path / "out")
    assert code == 0
    assert "over 2 seeds +9.0 ± 1.4 points" in " ".join(out.split())
    page = (tmp_path / "out/compare.md").read_text()
    assert "| 1 | 200 | +8.0 | +8.0 |" in page
    assert "<script>" not in page


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "compare", tmp_path / "a", tmp_path / "b")
    assert (code, out) == (2, "")
    assert f"error: {tmp_path / 'a'}: no such file or folder" in err


def test_the_command_loads_neither_torch_nor_ray(record: EvaluationRecord, tmp_path: Path) -> None:
    a = write_model(tmp_path / "a", record, answers(150))
    b = write_model(tmp_path / "b", record, answers(120))
    code = (
        "import sys; from temper.cli import main\n"
        f"try: main(['compare', {str(a)!r}, {str(b)!r}])\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray', 'foolbox', 'wandb', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
