"""Jobs on a real head with a token, as users send them: their ends, going on, and wrong calls."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from temper.cluster.jobs import connect, follow
from temper.errors import JobError

ROOT = Path(__file__).parents[2]
TOKEN = "jobs-test-token-5c1e7f0a9b3d"  # of this head alone
EPOCHS = 30
PATIENCE_S = 240
START_ATTEMPTS = 3
"""Ray gives its processes 30 s to start, which a machine that is busy may exceed."""
PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "ray-client-server-port",
)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class LocalHead:
    """A head in a folder and at ports of its own, ended by killing what it started and nothing else."""

    def __init__(self) -> None:
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.address = f"http://127.0.0.1:{self.ports['dashboard-port']}"
        self.process: subprocess.Popen[str] | None = None
        self.folder = Path()

    def start(self) -> None:
        for _ in range(START_ATTEMPTS):
            # Ray's sockets lie in its folder, and their paths may have 107 characters.
            self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
            foreign = ("RAY_", "PYTHONPATH")
            environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
            environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
            command += [f"--{name}={port}" for name, port in self.ports.items()]
            command += [f"--temp-dir={self.folder}", "--num-cpus=2", "--object-store-memory=100000000"]
            command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
            with (self.folder / "start.log").open("w") as log:
                self.process = subprocess.Popen(
                    command, env=environment, cwd=self.folder, stdout=log, stderr=log, text=True
                )
            if self._is_up():
                return
            said = (self.folder / "start.log").read_text()
            self.kill()
        pytest.fail(f"Ray did not start: {said[-2000:]}")

    def _is_up(self) -> bool:
        deadline = time.monotonic() + 120
        while self.process is not None and self.process.poll() is None and time.monotonic() < deadline:
            if "Ray runtime started" in (self.folder / "start.log").read_text():
                with contextlib.suppress(JobError):
                    connect(self.address)
                    return True
            time.sleep(0.3)
        return False

    def kill(self) -> None:
        """As when its machine dies."""
        if self.process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            tree = [first, *first.children(recursive=True)]
            for one in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(tree, timeout=20)
        self.process.wait()
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def head() -> Iterator[LocalHead]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        forget_token()
        head = LocalHead()
        patch.setenv("RAY_API_SERVER_ADDRESS", head.address)
        try:
            head.start()
            yield head
        finally:
            head.kill()
    forget_token()


def forget_token() -> None:
    """Ray reads the token once for a process."""
    from ray._raylet import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()


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


def test_whatever_ends_a_job_the_same_words_go_on(
    head: LocalHead, command: Any, digits: dict[str, Path], tmp_path: Path, record_property: Any
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
    assert f"storage: {run} is written and seen by the head; no worker is up yet" in err
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
    assert "nothing answers here" in err

    head.start()
    code, out, err = command(*submit, "--json", "--", *recipe)
    assert code == 0, err
    summary = json.loads(out)
    record_property("head_killed_to_end_s", time.monotonic() - killed)
    assert (summary["submission_id"], summary["status"], summary["exit_status"]) == ("long", "SUCCEEDED", 0)
    assert summary["out"] == str(run)
    assert f"record: {run}/record.json" in "\n".join(summary["last_lines"])
    assert f"epoch {EPOCHS}/{EPOCHS}" in err, "its lines are shown as they come"
    assert epochs(run) == list(range(EPOCHS)), "every epoch once, in order"
    assert (run / "record.json").exists()
    assert [path.name for path in run.parent.iterdir()] == ["run"], "the probes left nothing"
    code, out, _ = command("job", "status", "--json")
    assert [job["submission_id"] for job in json.loads(out)["jobs"]] == ["long"], "no probe is listed"


def _follow(address: str, said: list[str]) -> None:
    try:
        follow(connect(address), "long-3", said.append, patience_s=3)
    except JobError as problem:
        said.append(str(problem))


def test_a_job_s_exit_status_and_last_words_come_back(head: LocalHead, command: Any) -> None:
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


def test_ctrl_c_ends_the_following_and_not_the_job(head: LocalHead, command: Any) -> None:
    connect(head.address).start("slow", "echo begun; sleep 300", {}, {})
    wait_for(lambda: connect(head.address).find("slow").status == "RUNNING", "the job")
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    code, _, err = command("job", "logs", "-f", "slow")
    assert code == 130
    assert "job slow goes on without you; `temper job logs -f slow` follows it, `temper job stop slow`" in err
    assert connect(head.address).find("slow").status == "RUNNING"
    assert command("job", "stop", "slow")[0] == 0
    assert connect(head.address).find("slow").status == "STOPPED"
    code, _, err = command("job", "stop", "slow")
    assert code == 0
    assert "is over already: stopped" in err


def test_a_plain_ray_job_from_a_checkout_has_the_code_that_was_sent(head: LocalHead, tmp_path: Path) -> None:
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
        ({"RAY_AUTH_TOKEN": "another-clusters-token"}, 1, "does not take this token"),
        ({"RAY_AUTH_TOKEN": None, "HOME": "/nowhere"}, 1, "asks for a token, and none was sent"),
        ({"RAY_AUTH_MODE": ""}, 2, "RAY_AUTH_MODE is empty"),
        ({"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}, 1, "nothing answers here"),
    ],
    ids=["wrong token", "no token", "empty mode", "no head"],
)
def test_what_keeps_a_job_from_its_head_is_one_line(
    head: LocalHead,
    command: Any,
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
    assert TOKEN not in err
    assert "another-clusters-token" not in err


def test_a_head_that_asks_for_a_token_says_so_to_who_has_not_heard_of_it(head: LocalHead) -> None:
    """In a process of its own, for Ray reads RAY_AUTH_MODE once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    code = "from temper.cli import main; main(['job', 'status'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "asks for a token, and none was sent: export RAY_AUTH_MODE=token" in done.stderr


def test_a_job_is_refused_before_anything_is_sent(head: LocalHead, command: Any, tmp_path: Path) -> None:
    submit = ["job", "submit", "--working-dir", str(ROOT)]
    data = ["--set", "data.target=/nowhere/t", "--set", "data.source=/nowhere/s"]
    tiny = ["train", "jobs/recipes/tiny.yaml", *data]
    code, _, err = command(*submit, "--max-mib", "0.5", "--", *tiny, "--out", tmp_path / "run")
    assert code == 2
    assert "MiB would be sent, more than 0.5 MiB; the largest, in MiB: platform/" in err
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
