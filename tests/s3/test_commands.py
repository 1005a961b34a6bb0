"""The commands on addresses, as people type them; and what they leave of the keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from temper.cli import main
from temper.storage import Address, list_objects, read_bytes

ROOT = Path(__file__).parents[2]
SECRETS = ("an-invented-key", "an-invented-secret-key")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int | None, str, str]:
    code: Any = None
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_shards_training_evaluation_and_board_in_s3(
    bucket: str, digits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], machine: Any
) -> None:
    shards, out = f"{bucket}/shards/digits", f"{bucket}/runs/a"
    code, _, err = run(capsys, "shards", digits["images"], shards)
    assert (code, f"shards: {shards}" in err) == (0, True)
    fast = {
        "data.target": shards, "data.source": "null", "objective.alpha": 0, "epochs": 1, "pretrain": "null",
        "data.shots_per_class": 12, "evaluation.max_images": 8, "validation.max_images": 16,
    }  # fmt: skip
    settings = [part for name, value in fast.items() for part in ("--set", f"{name}={value}")]
    code, said, err = run(capsys, "train", ROOT / "jobs/recipes/tiny.yaml", *settings, "--out", out, "--json")
    assert code == 0, err
    assert json.loads(said)["record"] == f"{out}/record.json"
    assert f"record: {out}/record.json" in err
    assert "cache-a" not in said + err, "people see addresses"
    code, _, err = run(capsys, "train", ROOT / "jobs/recipes/tiny.yaml", *settings, "--out", out)
    assert code == 1
    assert f"{out}: this run is finished; evaluate it with `temper evaluate {out}`" in err
    machine("b")
    code, said, err = run(capsys, "verify", f"{out}", "--shallow")
    assert code == 0, said + err
    code, said, err = run(capsys, "leaderboard", f"{bucket}/runs", "--out", tmp_path / "board", "--json")
    assert code == 0, err
    assert len(json.loads(said)["boards"][0]["entries"]) == 1
    code, _, err = run(capsys, "serve", f"{bucket}/runs")
    assert (code, "this command works with local folders only" in err) == (2, True)
    assert_no_secret(bucket, tmp_path)


def assert_no_secret(bucket: str, folder: Path) -> None:
    """Neither in an object, nor in a file of the caches, nor in their names."""
    place = Address.parse(bucket)
    contents = {one.name: read_bytes(place / one.name) or b"" for one in list_objects(place)}
    contents |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(contents) > 30
    for name, content in contents.items():
        for secret in SECRETS:
            assert secret.encode() not in name.encode() + content, name


@pytest.mark.parametrize("option", ["--out", "--set"])
def test_keys_in_an_address_are_refused(
    option: str, bucket: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "s3://me:hunter2-is-secret@bucket/runs"
    value = address if option == "--out" else f"data.target={address}"
    code, _, err = run(capsys, "train", ROOT / "jobs/recipes/tiny.yaml", option, value)
    assert code in (1, 2)
    assert "hunter2" not in err
    assert "environment" in err
