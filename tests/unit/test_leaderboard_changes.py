"""What rose and fell, and the files for others: Markdown, CSV, JSON with its schema, W&B, a PDF."""

import csv
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from temper.cli import main
from temper.errors import RecordError, TemperError, UsageError
from temper.leaderboard import LeaderboardSummary, build_leaderboard
from temper.leaderboard.exports import COLUMNS, PLACE, to_rows
from temper.leaderboard.import_entries import import_entries
from temper.leaderboard.pdf import print_pdf
from temper.records import CorruptionRecord, CurvePoint, FoldRun, SuiteRecord, TargetSummary, ThreatRecord
from temper.records.crossval import CrossvalRecord, Spread
from temper.spec import Threat
from temper.statistics import wilson
from temper.tracking import publish_board

SECRET = "k" * 40


def first(count: int, total: int = 200) -> np.ndarray:
    return np.arange(total) < count


@pytest.fixture
def old(vary: Any, tmp_path: Path) -> Path:
    """A leaderboard of four models, far apart."""
    for name, count in {"alpha": 160, "beta": 120, "gamma": 80, "delta": 40}.items():
        vary(tmp_path / "before", name, first(count))
    build_leaderboard([tmp_path / "before"], tmp_path / "old")
    return tmp_path / "old/leaderboard.json"


def test_what_rose_and_fell_is_told(vary: Any, old: Path, tmp_path: Path) -> None:
    vary(tmp_path / "now", "alpha", first(160))
    vary(tmp_path / "now", "gamma", first(190), recipe_hash="another")
    vary(tmp_path / "now", "delta", first(50))
    vary(tmp_path / "now", "epsilon", first(20))
    changes = build_leaderboard([tmp_path / "now"], tmp_path / "new", old=old).changes
    assert changes is not None
    found = {c.name: (c.kind, c.old_rank, c.new_rank) for c in changes.changes}
    assert found == {
        "gamma": ("rose", 3, 1), "delta": ("rose", 4, 3), "alpha": ("fell", 1, 2),
        "epsilon": ("new", None, 4), "beta": ("gone", 2, None),
    }  # fmt: skip
    notes = {c.name: c.note for c in changes.changes}
    assert notes["gamma"] == "different recipe"
    assert notes["alpha"] == "same numbers; other models changed"
    page, markdown = ((tmp_path / "new" / name).read_text() for name in ("index.html", "leaderboard.md"))
    assert 'class="change rose"' in page
    assert "| rose | gamma |" in markdown
    assert "| 3 → 1 | 40.0 → 95.0 | different recipe |" in markdown
    assert changes.num_same == 0


def test_nothing_changed(old: Path, tmp_path: Path) -> None:
    changes = build_leaderboard([tmp_path / "before"], tmp_path / "new", old=old).changes
    assert changes is not None
    assert (changes.changes, changes.num_same) == ([], 4)
    assert "4 models are unchanged" in (tmp_path / "new/leaderboard.md").read_text()


def test_another_suite_is_another_board(vary: Any, old: Path, tmp_path: Path) -> None:
    suite = SuiteRecord(name="later", version=9, hash="0" * 16)
    vary(tmp_path / "now", "alpha", first(160), suite=suite)
    changes = build_leaderboard([tmp_path / "now"], tmp_path / "new", old=old).changes
    assert changes is not None
    assert sorted((c.kind, c.note) for c in changes.changes) == [
        *[("gone", "the board is gone")] * 4, ("new", "new board"),
    ]  # fmt: skip


def test_a_leaderboard_of_version_1_is_compared(old: Path, tmp_path: Path) -> None:
    """As temper 0.1 wrote it: no cards, no ties, and no list of unverified entries."""
    document = json.loads(old.read_text())
    document["schema_version"] = 1
    for name in ("crossvals", "changes"):
        document.pop(name)
    for board in document["boards"]:
        board.pop("unverified"), board.pop("image_size"), board.pop("num_unpaired")
        for entry in board["entries"]:
            entry.pop("slug"), entry.pop("is_tied")
    older = tmp_path / "v1.json"
    older.write_text(json.dumps(document))
    changes = build_leaderboard([tmp_path / "before"], tmp_path / "new", old=older).changes
    assert changes is not None
    assert (changes.changes, changes.num_same) == ([], 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as a leaderboard"),
        ('{"schema_version": 7}', "schema version 7 of a leaderboard, this temper reads 1 and 2"),
        ("[1]", "schema version None"),
        ('{"schema_version": 2, "as_of": "x"}', "'boards': Field required"),
    ],
)
def test_what_is_no_older_leaderboard_is_refused(vary: Any, tmp_path: Path, content: str, words: str) -> None:
    vary(tmp_path / "now", "alpha", first(10))
    (tmp_path / "old.json").write_text(content)
    with pytest.raises(RecordError, match=words):
        build_leaderboard([tmp_path / "now"], tmp_path / "new", old=tmp_path / "old.json")
    with pytest.raises(UsageError, match="--compare takes an older leaderboard"):
        build_leaderboard([tmp_path / "now"], tmp_path / "new", old=tmp_path / "none.json")
    assert not (tmp_path / "new").exists()


def test_the_json_obeys_its_schema_and_comes_back(vary: Any, old: Path, tmp_path: Path) -> None:
    vary(tmp_path / "now", "alpha", first(160), **further(200))
    crossval(tmp_path / "now")
    summary = build_leaderboard([tmp_path / "now"], tmp_path / "new", old=old)
    text = (tmp_path / "new/leaderboard.json").read_text()
    schema = json.loads((tmp_path / "new/leaderboard.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(text), schema)
    assert LeaderboardSummary.model_validate_json(text) == summary
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(text), "boards": "none"}, schema)


def further(total: int) -> dict[str, Any]:
    """What a record may have beyond the threat model of its recipe."""
    levels = (0.0, 0.05, 0.1)
    return {
        "curve": [CurvePoint(eps=e, robust_acc=wilson(int(total * (0.9 - 4 * e)), total)) for e in levels],
        "others": [
            ThreatRecord(
                threat=Threat(norm="l2", eps=0.5), suite="quick-l2", robust_acc=wilson(90, total), attacks=[]
            )
        ],
        "union_acc": wilson(77, total),
        "corruptions": [
            CorruptionRecord(
                group="common",
                kinds={"fog": [0.9, 0.8, 0.7, 0.6, 0.5]},
                mean_acc=0.7,
                relative=0.8,
                num_images=total,
            )
        ],
    }


def crossval(folder: Path) -> None:
    spread = Spread(mean=0.6, std_folds=0.05, std_seeds=None, interval=None)
    target = TargetSummary(
        target="digits", path="d", fingerprint="f", num_images=100, num_copies=0, test_to_train=0.25,
        num_ok=2, num_blocked=1, num_failed=0, measures={"clean_acc": spread, "robust_acc": spread},
    )  # fmt: skip
    runs = [
        FoldRun(target="digits", fold=fold, seed=0, status=status, robust_acc=value)
        for fold, status, value in ((0, "ok", 0.55), (1, "ok", 0.65), (2, "blocked", 0.99))
    ]
    record = CrossvalRecord(
        name="cv", created="2026-01-01T00:00:00+00:00", recipe_hash="h", recipe={},
        threat=Threat(eps=0.1), folds=3, fold_seed=0, keep_test=False, seeds=[0],
        targets=[target], runs=runs, seconds=1.0, environment={},
    )  # fmt: skip
    (folder / "crossval.json").write_text(record.model_dump_json())


def test_everything_that_was_measured_is_shown(vary: Any, tmp_path: Path) -> None:
    vary(tmp_path / "in", "alpha", first(100), **further(200))
    crossval(tmp_path / "in")
    (tmp_path / "in/deep").mkdir()
    (tmp_path / "in/deep/crossval.json").write_text("{}")
    summary = build_leaderboard([tmp_path / "in"], tmp_path / "out")
    assert summary.crossvals[0].robust == {"digits": [0.55, 0.65, None]}
    assert "deep/crossval.json" in summary.skipped[0].path
    page = (tmp_path / "out/index.html").read_text()
    card = next((tmp_path / "out/models").glob("*.html")).read_text()
    for words in ("Several threat models", "L2 0.5", "38.5", "Accuracy per corruption", "60.0 ± 5.0"):
        assert words in page, words
    for words in ("Robust within all of them", "Common corruptions", "Security curve", "temper verify ."):
        assert words in card, words


def test_the_csv_has_every_entry_and_no_formula(vary: Any, tmp_path: Path) -> None:
    vary(tmp_path / "in", "alpha", first(100), name='=HYPERLINK("x")')
    vary(tmp_path / "in", "beta", first(50), status="blocked")
    build_leaderboard([tmp_path / "in"], tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/leaderboard.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ['\'=HYPERLINK("x")', "beta"]
    assert list(rows[0]) == [*PLACE, *COLUMNS]
    assert [row["status"] for row in rows] == ["ok", "blocked"]


def test_other_remote_paths_are_refused_in_one_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only local paths and s3:// are read"):
        build_leaderboard([Path("gs://bucket/runs")], tmp_path / "out")


def test_cards_of_models_that_are_gone_go(vary: Any, tmp_path: Path) -> None:
    vary(tmp_path / "in", "alpha", first(100))
    gone = vary(tmp_path / "in", "beta", first(50))
    build_leaderboard([tmp_path / "in"], tmp_path / "out")
    (tmp_path / "out/models/mine.html").write_text("not temper's")
    gone.unlink()
    build_leaderboard([tmp_path / "in"], tmp_path / "out")
    names = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "out/models").iterdir())
    assert names == ["", "alpha"]


def test_wandb_gets_a_table_and_an_artifact_and_no_key(
    vary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)  # WANDB_MODE is offline in all tests
    vary(tmp_path / "in", "alpha", first(100))
    (tmp_path / "Linf").mkdir()
    entry = {"name": "Invented", "dataset": "a", "eps": "0.1", "clean_acc": "90", "reported": "50"}
    (tmp_path / "Linf/published.json").write_text(json.dumps(entry))
    import_entries([tmp_path / "Linf"], tmp_path / "in")
    out = tmp_path / "out"
    summary = build_leaderboard([tmp_path / "in"], out)
    said = publish_board(out, [out / "leaderboard.json"], [*PLACE, *COLUMNS], to_rows(summary), "boards")
    assert said.startswith("offline")
    limit = time.monotonic() + 60
    while not (found := list(out.glob("wandb/offline-run-*/files/media/table/*.json"))):
        assert time.monotonic() < limit
        time.sleep(0.1)
    table = json.loads(found[0].read_text())
    assert table["columns"] == [*PLACE, *COLUMNS]
    assert "alpha" in table["data"][0]
    assert {"published", "not measured here"} < set(table["data"][1])
    kept = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


def test_a_pdf_needs_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TemperError, match=r"no browser on the PATH to print the PDF with .*install Chromium"):
        print_pdf(tmp_path / "index.html", tmp_path / "board.pdf")
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho 'cannot start' >&2\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    with pytest.raises(TemperError, match=r"could not print .*: cannot start"):
        print_pdf(tmp_path / "index.html", tmp_path / "board.pdf")


def test_the_command_compares(
    vary: Any, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vary(tmp_path / "now", "alpha", first(160))
    arguments = [str(tmp_path / "now"), "--out", str(tmp_path / "new"), "--compare", str(old), "--json"]
    with pytest.raises(SystemExit) as end:
        main(["leaderboard", *arguments])
    assert not end.value.code
    assert len(json.loads(capsys.readouterr().out)["changes"]["changes"]) == 3
