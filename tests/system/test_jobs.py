"""Jobs on a real head with a token, as users send them: their ends, going on, and wrong calls."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from temper.cluster.jobs import connect, follow
from temper.errors import JobError

ROOT = Path(__file__).parents[2]
EPOCHS = 30
PATIENCE_S = 240
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def head(start_head: Any) -> Any:
    return start_head()


def wait_for(event: Callable[[], bool], what: str) -> float:
    """Seconds until ``event``."""
    started = time.monotonic()
    while not event():
        assert time.monotonic() - started < PATIENCE_S, f"waited in vain for {what}"
        time.sleep(0.1)
    return time.monotonic() - started


def epochs(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("}")]


def more_than(run: Path, count: int) -> Callable[[], bool]:
    return lambda: len(epochs(run)) > count


def driver_of(run: Path) -> psutil.Process:
    (found,) = [
        one
        for one in psutil.process_iter(["cmdline", "name"])
        if str(run) in (one.info["cmdline"] or []) and "python" in (one.info["name"] or "")
    ]
    return found


def test_whatever_ends_a_job_the_same_words_resume_it(
    head: Any, command: Any, digits: dict[str, Path], tmp_path: Path, record_property: Any
) -> None:
    """Stopped, its driver killed, its head killed: four attempts, and each epoch is there once."""
    run = tmp_path / "shared/run"
    recipe = ["train", "jobs/recipes/tiny.yaml", "--set", f"epochs={EPOCHS}", "--out", str(run)]
    for setting in (
        f"data.target={digits['target']}",
        f"data.source={digits['source']}",
        "evaluation.suite=quick",
        "evaluation.max_images=16",
        "validation.max_images=16",
    ):
        recipe += ["--set", setting]
    submit = ["job", "submit", "--id", "long", "--working-dir", str(ROOT)]

    code, out, err = command(*submit, "--no-wait", "--json", "--", *recipe)
    assert code == 0, err
    assert f"storage: {run} is written and seen by the head; no worker is running yet" in err
    assert "2 inputs found" in err
    assert json.loads(out)["submission_id"] == "long"
    code, _, err = command(*submit, "--", *recipe)
    assert code == 1, "an attempt is at work"
    assert "`temper job logs -f long` follows it" in err
    wait_for(more_than(run, 1), "an epoch")
    code, out, err = command("job", "stop", "long", "--json")
    assert code == 0, err
    assert json.loads(out)["status"] == "STOPPED"
    stopped = time.monotonic()

    kept = len(epochs(run))
    code, out, err = command(*submit, "--no-wait", "--json", "--", *recipe)
    assert json.loads(out)["submission_id"] == "long-2", err
    wait_for(more_than(run, kept), "an epoch of the second attempt")
    record_property("stop_to_next_epoch_s", time.monotonic() - stopped)

    kept = len(epochs(run))
    driver_of(run).send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code, _, err = command("job", "logs", "-f", "long")
    assert code == 128 + signal.SIGKILL, err
    assert "error: job long-2 failed with exit status 137" in err
    code, out, err = command(*submit, "--no-wait", "--json", "--", *recipe)
    assert json.loads(out)["submission_id"] == "long-3", err
    wait_for(more_than(run, kept), "an epoch of the third attempt")
    record_property("driver_killed_to_next_epoch_s", time.monotonic() - killed)

    kept = len(epochs(run))
    said: list[str] = []
    followed = threading.Thread(target=_follow, args=(head.address, said))
    followed.start()
    wait_for(lambda: bool(said), "the log")
    head.kill()
    killed = time.monotonic()
    followed.join(timeout=60)
    assert "ends with its head" in said[-1], said[-1]
    code, _, err = command("job", "status")
    assert code == 1
    assert "cannot connect" in err

    head.start()
    code, out, err = command(*submit, "--json", "--", *recipe)
    assert code == 0, err
    summary = json.loads(out)
    record_property("head_killed_to_end_s", time.monotonic() - killed)
    assert (summary["submission_id"], summary["status"], summary["exit_status"]) == ("long", "SUCCEEDED", 0)
    assert summary["out"] == str(run)
    assert f"record: {run}/record.json" in "\n".join(summary["last_lines"])
    assert f"epoch {EPOCHS}/{EPOCHS}" in err, "its lines are shown as they come"
    assert epochs(run) == list(range(1, EPOCHS + 1)), "every epoch once, in order"
    assert (run / "record.json").exists()
    assert [path.name for path in run.parent.iterdir()] == ["run"], "the probes left nothing"
    code, out, _ = command("job", "status", "--json")
    assert [job["submission_id"] for job in json.loads(out)["jobs"]] == ["long"], "no probe is listed"
    listed = connect(head.address).client.list_jobs()
    assert [job.submission_id for job in listed] == ["long"], "not by Ray either"


def _follow(address: str, said: list[str]) -> None:
    try:
        follow(connect(address), "long-3", said.append, patience_s=3)
    except JobError as problem:
        said.append(str(problem))


def test_a_job_s_exit_status_and_last_words_come_back(head: Any, command: Any) -> None:
    connect(head.address).start("bad", "sleep 1; echo; echo a; echo the last words; exit 3", {}, {})
    code, out, err = command("job", "logs", "-f", "bad", "--json")
    assert code == 3
    assert json.loads(out)["last_lines"][-2:] == ["a", "the last words"]
    assert json.loads(out)["exit_status"] == 3
    assert "error: job bad failed with exit status 3: the last words" in err
    assert command("job", "logs", "bad")[1].endswith("a\nthe last words\n")
    code, out, _ = command("job", "status", "bad")
    assert code == 0, "to look at it is no failure"
    assert "failed" in out


def test_ctrl_c_ends_the_following_and_not_the_job(head: Any, command: Any) -> None:
    connect(head.address).start("slow", "echo begun; sleep 300", {}, {})
    wait_for(lambda: connect(head.address).find("slow").status == "RUNNING", "the job")
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    code, _, err = command("job", "logs", "-f", "slow")
    assert code == 130
    assert "job slow keeps running; `temper job logs -f slow` follows it, `temper job stop slow`" in err
    assert connect(head.address).find("slow").status == "RUNNING"
    assert command("job", "stop", "slow")[0] == 0
    assert connect(head.address).find("slow").status == "STOPPED"
    code, _, err = command("job", "stop", "slow")
    assert code == 0
    assert "has already ended: stopped" in err


def test_a_plain_ray_job_from_a_checkout_has_the_code_that_was_sent(head: Any, tmp_path: Path) -> None:
    """``ray job submit`` with our runtime environment, and without temper's own command."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", head.address]
    ray += ["--runtime-env", "jobs/runtime_env.yaml", "--working-dir", "."]
    done = subprocess.run(
        [*ray, "--", "python", "jobs/evaluate.py", str(tmp_path / "nowhere")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"error: {tmp_path / 'nowhere'}" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"RAY_AUTH_TOKEN": "another-clusters-token"}, 1, "rejected this token"),
        ({"RAY_AUTH_TOKEN": None, "HOME": "/nowhere"}, 1, "requires a token, and none was sent"),
        ({"RAY_AUTH_MODE": ""}, 2, "RAY_AUTH_MODE is empty"),
        ({"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}, 1, "cannot connect"),
    ],
    ids=["wrong token", "no token", "empty mode", "no head"],
)
def test_what_keeps_a_job_from_its_head_is_one_line(
    head: Any,
    command: Any,
    forget_token: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str | None],
    code: int,
    message: str,
) -> None:
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    forget_token()
    try:
        ended, out, err = command("job", "status")
    finally:
        monkeypatch.undo()
        forget_token()
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert (ended, out, len(errors)) == (code, "", 1), err
    assert message in errors[0]
    assert head.token not in err
    assert "another-clusters-token" not in err


def test_a_head_that_asks_for_a_token_says_so_to_who_has_not_heard_of_it(head: Any) -> None:
    """In a process of its own, for Ray reads RAY_AUTH_MODE once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    code = "from temper.cli import main; main(['job', 'status'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "requires a token, and none was sent: export RAY_AUTH_MODE=token" in done.stderr


def test_a_job_is_refused_before_anything_is_sent(head: Any, command: Any, tmp_path: Path) -> None:
    submit = ["job", "submit", "--working-dir", str(ROOT)]
    data = ["--set", "data.target=/nowhere/t", "--set", "data.source=/nowhere/s"]
    tiny = ["train", "jobs/recipes/tiny.yaml", *data]
    code, _, err = command(*submit, "--max-mib", "0.5", "--", *tiny, "--out", tmp_path / "run")
    assert code == 2
    assert "MiB would be sent, more than 0.5 MiB; largest, in MiB: platform/" in err
    code, _, err = command(*submit, "--", *tiny, "--out", "run")
    assert code == 2
    assert "--out run is relative" in err
    code, _, err = command("job", "logs", "unheard-of")
    assert code == 1
    assert "no job 'unheard-of'; jobs here: " in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["submit", "status", "logs", "stop"])
def test_help_of_jobs_shows_an_example(command: Any, name: str) -> None:
    code, out, _ = command("job", name, "--help")
    assert code == 0
    assert f"Example: temper job {name}" in " ".join(out.split())
    assert "--json" in out
