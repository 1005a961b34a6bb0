"""Several hosts on one machine: a network namespace each, joined by a bridge, with a raylet of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

RAY = Path(sys.executable).with_name("ray")
PATIENCE_S = 90
HEALTH = {
    # A host that is cut off is given up after half a minute, not a whole one; sooner, and a busy one is.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
}
ON_HOSTS = {
    "GLOO_SOCKET_IFNAME": "eth0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A head asks for a token where its user has one, and nobody sends it unless told to.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "token-of-the-hosts-9f3a61c2",
}


@pytest.fixture
def pids_of() -> Callable[[str], list[int]]:
    """Processes of the tests' own cluster that Ray has named after a class or function."""

    def find(name: str) -> list[int]:
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended
                if " ".join(process.cmdline()).startswith(f"ray::{name}"):
                    found.append(process.pid)
        return found

    return find


class Namespace:
    """A network of its own; it goes with the process that holds it."""

    def __init__(self) -> None:
        own = Path("/proc/self/ns/net").readlink()
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._link = Path(f"/proc/{self._holder.pid}/ns/net")
        deadline = time.monotonic() + PATIENCE_S
        while self._holder.poll() is None and self._link.readlink() == own:
            assert time.monotonic() < deadline, "no network namespace"
            time.sleep(0.01)
        self.name = self._link.readlink()
        self.call("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def command(self, *arguments: object) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", *map(str, arguments)]

    def call(self, *arguments: object) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def processes(self) -> dict[int, str]:
        """Pid -> command line of what runs here."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                if entry.name.isdigit() and (entry / "ns/net").readlink() == self.name:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def kill(self) -> None:
        """End everything that runs here, at once, and leave the network."""
        for pid in self.processes():
            if pid != self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self._holder.kill()
        self._holder.wait()


class Host(Namespace):
    """A host on the bridge in ``hub``; its link can be cut and slowed down."""

    def __init__(self, hub: Namespace, number: int, folder: Path) -> None:
        super().__init__()
        self.ip, self._folder = f"10.77.0.{number}", folder
        self._started: list[subprocess.Popen[bytes]] = []
        hub.call("ip", "link", "add", f"port{number}", "type", "veth", "peer", "eth0", "netns", self.pid)
        hub.call("ip", "link", "set", f"port{number}", "master", "bridge", "up")
        self.call("ip", "address", "add", f"{self.ip}/24", "dev", "eth0")
        self.mend()

    def close(self) -> None:
        super().close()
        for process in self._started:
            process.wait()

    def cut(self) -> None:
        self.call("ip", "link", "set", "eth0", "down")

    def mend(self) -> None:
        self.call("ip", "link", "set", "eth0", "up")

    def answers(self, port: int) -> bool:
        """Whether something listens at ``port`` here."""
        return f":{port} " in self.call("ss", "-ltn")

    def slow_down(self, rate: str) -> None:
        """Send no more than ``rate``, as in ``10mbit``."""
        self.call("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "32kb",
                  "latency", "400ms")  # fmt: skip

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """A process on this host."""
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **ON_HOSTS, **environment},
        )

    def start_ray(self, *arguments: object, num_cpus: int) -> None:
        """A raylet; with ``--head``, the head."""
        common = ["--block", "--node-ip-address", self.ip, "--num-cpus", num_cpus, "--temp-dir", self._folder]
        with (self._folder / f"{self.ip}.log").open("a") as log:
            process = subprocess.Popen(
                self.command(RAY, "start", *arguments, *common, "--object-store-memory", 80 * 2**20),
                stdout=log,
                stderr=log,
                env={**os.environ, **HEALTH, **ON_HOSTS},
            )
        self._started.append(process)


class Hosts:
    """A head that trains nothing, and hosts of one CPU each."""

    def __init__(self, folder: Path, num_workers: int) -> None:
        self._folder, self._num_heads = folder, 0
        self._hub = Namespace()
        self._hub.call("ip", "link", "add", "bridge", "type", "bridge")
        self._hub.call("ip", "link", "set", "bridge", "up")
        self.head, *self.workers = [Host(self._hub, 1 + n, folder) for n in range(1 + num_workers)]
        self.address = f"{self.head.ip}:6379"

    def start(self) -> None:
        """Start Ray on every host, and wait until all have joined."""
        self.head.start_ray("--head", "--port", 6379, num_cpus=0)
        self._wait(lambda: self.head.answers(6379))
        for worker in self.workers:
            self.join(worker)

    def join(self, worker: Host) -> None:
        worker.start_ray("--address", self.address, num_cpus=1)
        self._wait(lambda: "raylet" in " ".join(worker.processes().values()))

    def alive(self) -> set[str]:
        """IP addresses of the hosts that the head believes in."""
        code = (
            "import ray, sys; from ray._raylet import GcsClient; "
            "nodes = GcsClient(address=sys.argv[1]).get_all_node_info().values(); "
            "print(*(node.node_manager_address for node in nodes if node.state == 0))"
        )
        process = self.head.start(sys.executable, "-c", code, self.address)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        return set(said.split())

    def _wait(self, event: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not event():
            assert time.monotonic() < deadline, "Ray does not start"
            time.sleep(0.1)

    def close(self) -> None:
        for host in (*self.workers, self.head, self._hub):
            host.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """A head and two workers, each on a host of its own; nothing runs yet."""
    needed = ("ip", "ss", "tc", "unshare", "nsenter")
    if os.name != "posix" or not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("network namespaces need root on Linux")
    if missing := [name for name in needed if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        pytest.skip("network namespaces are forbidden here")
    with tempfile.TemporaryDirectory(prefix="hosts-", ignore_cleanup_errors=True) as folder:
        found = Hosts(Path(folder), 2)
        try:
            yield found
        finally:
            found.close()
