"""What ``temper verify`` leaves beside a record, and what a card says of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from temper import __version__
from temper.cli import main
from temper.leaderboard import build_leaderboard
from temper.records import sha256_of
from temper.run.verify import verify_record
from temper.verification import leave_verdict, verdict_beside, verify_shallow


@pytest.fixture
def run(evaluated_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated_run, tmp_path / "secret-place/run"))


def verify(*arguments: str) -> int:
    try:
        main(["verify", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def card(run: Path, out: Path) -> str:
    build_leaderboard([run], out)
    (page,) = (out / "models").glob("*.html")
    return " ".join(page.read_text(encoding="utf-8").split())


def test_a_verdict_says_version_date_and_checks_but_no_place(run: Path, tmp_path: Path) -> None:
    assert verify(str(run), "--shallow") == 0
    text = (run / "verdict.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert document["temper"] == __version__
    assert document["passed"] is True
    assert document["depth"] == "shallow"
    assert document["record_sha256"] == sha256_of(run / "record.json")
    assert "clean accuracy" in document["checks"]
    assert str(tmp_path) not in text
    assert "secret-place" not in text


def test_a_card_says_when_and_with_what_it_was_verified(run: Path, tmp_path: Path) -> None:
    assert "The record has not been verified here" in card(run, tmp_path / "before")
    assert verify(str(run / "record.json"), "--shallow") == 0
    shallow = card(run, tmp_path / "shallow")
    assert f"with temper {__version__}" in shallow
    assert "of files and numbers alone; its model was not asked" in shallow
    assert "The record has not been verified here" in shallow
    leave_verdict(run, verify_record(run, num_sampled=4))
    deep = card(run, tmp_path / "deep")
    assert "with its model, its images and new attacks" in deep
    assert "The record has not been verified here" not in deep
    assert verify(str(run), "--shallow") == 0  # does not replace the deep one
    found, doubt = verdict_beside(run / "record.json")
    assert found is not None
    assert (found.depth, doubt) == ("deep", None)


def test_a_record_that_was_changed_since_is_said(run: Path, tmp_path: Path) -> None:
    assert verify(str(run), "--shallow") == 0
    document: dict[str, Any] = json.loads((run / "record.json").read_text())
    document["cost"]["train_s"] = 1.0
    (run / "record.json").write_text(json.dumps(document))
    page = card(run, tmp_path / "board")
    assert "Not verified as it stands" in page
    assert "the record was changed after it was verified" in page
    assert 'class="status verified"> verified' not in page
    assert verify(str(run), "--shallow") == 0
    assert "Not verified as it stands" not in card(run, tmp_path / "again")


def test_a_failed_verification_is_said(run: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads((run / "record.json").read_text())
    document["balanced_acc"] = 0.5
    (run / "record.json").write_text(json.dumps(document))
    assert verify(str(run), "--shallow") == 1
    page = card(run, tmp_path / "board")
    assert "<b>Verification failed</b>" in page
    assert "clean accuracy" in page


def test_a_damaged_verdict_is_none(run: Path, tmp_path: Path) -> None:
    (run / "verdict.json").write_text("{")
    assert "verdict.json is not readable" in card(run, tmp_path / "board")


def test_a_folder_that_cannot_be_written_changes_no_verdict(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "verdict.json").mkdir()
    (run / "verdict.json/x").touch()
    assert verify(str(run), "--shallow") == 0
    assert "no verdict beside the record" in capsys.readouterr().err.replace("\n", " ")


def test_shallow_verification_is_not_changed_by_a_verdict(run: Path) -> None:
    found = verify_shallow(run)
    leave_verdict(run, found)
    assert verify_shallow(run) == found
