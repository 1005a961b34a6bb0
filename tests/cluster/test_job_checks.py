"""The small job that looks at the storage, on a real head: what it finds, and that nothing of it stays."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from temper.cluster.jobs import Head, JobRequest, check_storage, connect
from temper.cluster.jobs.request import load_runtime_env
from temper.errors import JobError
from temper.spec import validate

ROOT = Path(__file__).parents[2]
AGENT_ATTEMPTS = 20
LONGER_THAN_RAY_WATCHES_S = 4
OUR_PYTHON = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
THEIRS = "mine-probe-0123abcd"
"""A job that is called like a probe, and is somebody else's."""
pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.long]


@pytest.fixture(scope="module")
def head(ray_cluster: None) -> Head:
    import ray

    found = connect(f"http://{ray._private.worker.get_dashboard_url()}")
    for attempt in range(AGENT_ATTEMPTS):
        try:
            found.start(THEIRS, "true", {}, {})
            break
        except JobError as problem:  # the head is up before its agent
            if "No available agent" not in str(problem) or attempt == AGENT_ATTEMPTS - 1:
                raise
            time.sleep(2)
    return found


def request(out: Path, **changes: Any) -> JobRequest:
    document = {
        "id": "mine",
        "words": ["demo", "--out", str(out)],
        "out": str(out),
        "working_dir": ROOT,
        "runtime_env": load_runtime_env(ROOT, OUR_PYTHON),
    }
    return validate(JobRequest, {**document, **changes}, "job")


def listed(head: Head) -> list[str]:
    """What Ray itself lists, when it has had the time to write back what it misses."""
    time.sleep(LONGER_THAN_RAY_WATCHES_S)
    return [job.submission_id for job in head.client.list_jobs() if job.submission_id]


def test_a_look_at_the_storage_leaves_no_job(head: Head, tmp_path: Path) -> None:
    assert "is written and seen by the head" in check_storage(head, request(tmp_path / "out")).found
    assert listed(head) == [THEIRS]
    assert list(tmp_path.iterdir()) == []


def test_a_look_that_finds_a_fault_leaves_no_job(head: Head, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"data\.target: node .* cannot find /nowhere/t"):
        check_storage(head, request(tmp_path, reads={"data.target": "/nowhere/t"}))
    assert listed(head) == [THEIRS]


def test_a_look_that_fails_is_an_error_and_leaves_no_job(head: Head, tmp_path: Path) -> None:
    (tmp_path / "temper.py").write_text("raise RuntimeError('another temper')")
    environment = {"env_vars": {**OUR_PYTHON, "PYTHONPATH": str(tmp_path)}}
    with pytest.raises(JobError, match=r"the job that checks the storage failed: .*another temper"):
        check_storage(head, request(tmp_path, runtime_env=environment))
    assert listed(head) == [THEIRS]


def test_a_look_that_is_given_up_is_ended_and_leaves_no_job(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C, once it runs."""
    (tmp_path / "temper.py").write_text("import time; time.sleep(300)")
    environment = {"env_vars": {**OUR_PYTHON, "PYTHONPATH": str(tmp_path)}}

    def interrupt() -> None:
        import _thread

        while not any("-probe-" in one.submission_id and one.status == "RUNNING" for one in others()):
            time.sleep(0.2)
        _thread.interrupt_main()

    def others() -> list[Any]:
        return [one for one in head.client.list_jobs() if one.submission_id not in (None, THEIRS)]

    waiting = threading.Thread(target=interrupt, daemon=True)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        check_storage(head, request(tmp_path, runtime_env=environment))
    assert listed(head) == [THEIRS]
