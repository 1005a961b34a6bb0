"""What the tests of commands share: running one, and a head of Ray with a token."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from temper.cli import main
from temper.cluster.jobs import connect
from temper.errors import JobError

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


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: its exit code, stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


class LocalHead:
    """A head in a folder and at ports of its own, ended by killing what it started and nothing else."""

    token = "local-head-token-5c1e7f0a9b3d"  # of such heads alone

    def __init__(
        self, num_cpus: int = 2, *options: str, python: str | Path = sys.executable, **environment: str
    ) -> None:
        self._python = Path(python)
        self._options = (f"--num-cpus={num_cpus}", *options)
        self._environment = environment
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
            environment |= {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": self.token,
                "RAY_USAGE_STATS_ENABLED": "0",
            }
            environment |= self._environment
            environment["PATH"] = f"{self._python.parent}:{environment['PATH']}"
            command = [str(self._python), "-m", "ray.scripts.scripts", "start", "--head", "--block"]
            command += [f"--{name}={port}" for name, port in self.ports.items()]
            command += [f"--temp-dir={self.folder}", "--object-store-memory=100000000", *self._options]
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

    @property
    def gcs(self) -> str:
        """What RAY_ADDRESS is set to."""
        from ray.util import get_node_ip_address  # Ray reads RAY_AUTH_MODE when it is imported

        return f"{get_node_ip_address()}:{self.ports['port']}"

    def processes(self) -> list[psutil.Process]:
        """What it has started, and what that has."""
        return [] if self.process is None else psutil.Process(self.process.pid).children(recursive=True)

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


@pytest.fixture(scope="session")
def forget_token() -> Callable[[], None]:
    """Ray reads the token once for a process; after this it reads it again."""

    def forget() -> None:
        from ray._raylet import AuthenticationTokenLoader

        AuthenticationTokenLoader.instance().reset_cache()

    return forget


@pytest.fixture(scope="module")
def start_head(forget_token: Callable[[], None]) -> Iterator[Callable[..., LocalHead]]:
    """Starts a head (arguments of ``LocalHead``) that this process has the token of, and is to submit to."""
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", LocalHead.token)
        forget_token()

        def start(
            *arguments: Any, before: Callable[[LocalHead], object] | None = None, **options: Any
        ) -> LocalHead:
            head = LocalHead(*arguments, **options)
            started.append(head)
            if before is not None:
                before(head)
            patch.setenv("RAY_API_SERVER_ADDRESS", head.address)
            head.start()
            return head

        yield start
        for head in started:
            head.kill()
    forget_token()
