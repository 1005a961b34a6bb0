"""A server that speaks S3's protocol, and a proxy before it that fails as storage does."""

import http.client
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

BUCKETS = itertools.count(1)
SECRET = "an-invented-secret-key"
HOP = {"connection", "transfer-encoding", "date", "server", "expect", "content-length"}
"""Headers of one connection."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``machine("b")``: from now on this process has the caches of another machine, empty at first."""

    def move(name: str) -> Path:
        cache = tmp_path / f"cache-{name}"
        monkeypatch.setenv("TEMPER_CACHE", str(cache))
        return cache

    return move


@pytest.fixture
def bucket(s3_server: str, machine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """``s3://`` and a new, empty bucket; the environment says how to get there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-invented-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("TEMPER_STORAGE_LIMIT_S", "10")
    machine("a")
    name = f"bucket-{next(BUCKETS)}"
    connection = http.client.HTTPConnection(urlsplit(s3_server).netloc)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    return f"s3://{name}"


@dataclass
class Fault:
    """What happens to a request instead of, or beside, its answer."""

    kind: str
    """``503``, ``403``, ``slow``, ``drop`` (no answer), ``cut`` (half of one), ``cut upload`` (a request)."""
    method: str | None = None
    part: str = ""
    """Of the request's path."""
    seconds: float = 0.0


@dataclass
class Faulty:
    """The proxy: each of ``faults`` happens to the next request that it fits; ``seen`` are all requests."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self, kind: str, times: int = 1, method: str | None = None, part: str = "", seconds: float = 0.0
    ) -> None:
        """Let the next ``times`` requests that fit fail."""
        with self.lock:
            self.faults += [Fault(kind, method, part, seconds) for _ in range(times)]

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.seen.append(f"{method} {path}")
            for index, fault in enumerate(self.faults):
                if fault.method in (None, method) and fault.part in path:
                    return self.faults.pop(index)
        return None


def handler_of(proxy: Faulty) -> type[BaseHTTPRequestHandler]:  # noqa: C901  # a class in a function
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def answer(self) -> None:
            fault = proxy.take(self.command, self.path)
            if fault is not None and fault.kind == "cut upload":
                self.rfile.read(1000)
                return self.hang_up()
            body = self.body()
            if fault is not None and fault.kind in ("503", "403"):
                code = {"503": b"SlowDown", "403": b"AccessDenied"}[fault.kind]
                return self.send(int(fault.kind), {}, b"<Error><Code>%s</Code></Error>" % code)
            if fault is not None and fault.kind == "drop":
                return self.hang_up()
            if fault is not None:
                time.sleep(fault.seconds)
            connection = http.client.HTTPConnection(urlsplit(proxy.upstream).netloc)
            sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            connection.request(self.command, self.path, body, sent)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            if fault is not None and fault.kind == "cut":
                self.send(answer.status, kept, content, cut=True)
                return self.hang_up()
            return self.send(answer.status, kept, content)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def send(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
                self.wfile.flush()

        def hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

    return Handler


@pytest.fixture
def proxy(s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """The endpoint of this test leads through it."""
    faulty = Faulty(s3_server)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(faulty))
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.server_port}")
    yield faulty
    listener.shutdown()
    listener.server_close()
    thread.join()
