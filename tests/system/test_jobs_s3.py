"""A job whose results lie in S3: the check before it, the run, and what comes back."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import S3FileSystem

from temper.storage import Address, list_objects, read_bytes

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
BUCKET = "jobs"


@pytest.fixture
def head(start_head: Any, s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Its processes know the storage and its keys; so does who submits, but no job is told them."""
    keys = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "an-invented-key",
        "AWS_SECRET_ACCESS_KEY": "an-invented-secret-key",
        "AWS_REGION": "us-east-1",
    }
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TEMPER_CACHE", str(tmp_path / "cache-of-the-driver"))
    S3FileSystem(endpoint_override=s3_server, allow_bucket_creation=True).create_dir(BUCKET)
    return start_head(2, **keys, TEMPER_CACHE=str(tmp_path / "cache-of-the-head"))


def test_a_job_checks_writes_and_reports_a_place_in_s3(
    head: Any, command: Any, digits: dict[str, Path], tmp_path: Path
) -> None:
    out = f"s3://{BUCKET}/runs/a"
    train = ["train", "jobs/recipes/tiny.yaml", "--out", out]
    for setting in (
        f"data.target={digits['target']}",
        f"data.source={digits['source']}",
        "epochs=2",
        "evaluation.suite=quick",
        "evaluation.max_images=16",
        "validation.max_images=16",
    ):
        train += ["--set", setting]
    submit = ["job", "submit", "--id", "bucket", "--working-dir", str(ROOT)]

    code, _, err = command(*submit, "--", *train[:-1], "data.source=s3://jobs/nowhere")
    assert code != 0
    assert "data.source" in err
    assert "cannot find s3://jobs/nowhere" in err
    code, out_text, err = command(*submit, "--json", "--", *train)
    assert code == 0, err
    assert f"storage: {out} is written and seen by the head" in err
    summary = json.loads(out_text)
    assert (summary["status"], summary["out"]) == ("SUCCEEDED", out)
    assert f"record: {out}/record.json" in "\n".join(summary["last_lines"])
    names = {one.name for one in list_objects(Address.parse(f"s3://{BUCKET}"))}
    assert {"runs/a/record.json", "runs/a/metrics.jsonl"} <= names
    assert not [name for name in names if "probe" in name], "the check left nothing"
    assert json.loads(read_bytes(Address.parse(out) / "record.json") or b"{}")["clean_acc"]
    secrets = ("an-invented-secret-key", head.token)
    logs = [path for path in (head.folder / "session_latest/logs").rglob("*") if path.is_file()]
    assert logs
    assert not [path for path in logs if any(word.encode() in path.read_bytes() for word in secrets)]
