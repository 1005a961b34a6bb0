"""Whether a head may be trusted with code: whose address it is, and whether it asks for a token."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from temper.cluster.jobs import address
from temper.cluster.jobs.address import choose, is_near, takes_anyone
from temper.errors import JobError, UsageError


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.8.9.10", True),
        ("http://localhost:8265", True),
        ("http://[::1]:8265", True),
        ("http://127.evil.example:8265", False),
        ("http://127.0.0.1.example", False),
        ("http://localhost.example", False),
        ("http://10.0.0.1:8265", False),
        ("http://[fe80::1]:8265", False),
        ("HTTP://LocalHost:8265", True),
        ("http://[::ffff:10.0.0.1]:8265", False),
        ("http://2130706433:8265", False),
        ("http://0177.0.0.1:8265", False),
        ("http://0.0.0.0:8265", False),
        ("http://127.0.0.1:8265@evil.example", False),
        # Ray's client goes to another host there than urllib reads.
        (r"http://evil.example\@127.0.0.1:8265", False),
        ("http://[::1]evil", False),
        ("http://local\nhost", False),
    ],
)
def test_only_a_loopback_address_is_near(url: str, near: bool) -> None:
    assert is_near(url) is near


def test_an_address_behind_a_proxy_is_the_proxy_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert not is_near("http://127.0.0.1:8265")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert is_near("http://127.0.0.1:8265")


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.1:8265",
        "ftp://head.example",
        "http:///jobs",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:-1",
        "http://127.0.0.1:port",
        "http://127.0.0.1:\uff11",
        "http://[::1",
        "http://[127.0.0.1]:8265",
        "http://[:::]:8265",
        "http://head..example",
        "http://.head",
        f"http://{'a' * 64}.example",
        "http://head example",
        "http://h\u2100ad",
        "http://h\ud800ad",
        "http://head.example?x=1",
        "http://head.example#x",
        r"http://evil.example\@127.0.0.1",
    ],
)
def test_what_is_no_address_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(UsageError, match="--address: expected the dashboard's URL") as refused:
        choose(url)
    assert "\n" not in str(refused.value)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="without a user") as refused:
        choose("http://me:swordfish@head.example:8265")
    assert "swordfish" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1:8265", "https://head.example/ray/", "http://[fd00::1]:8265", "http://ray_head-1:80"],
)
def test_addresses_of_heads_are_taken(url: str) -> None:
    assert choose(url) == url.rstrip("/")
    assert choose(url.replace("http", "HTTP", 1)) == url.rstrip("/")


@contextmanager
def head(status: int | None) -> Iterator[str]:
    """A server that answers everything with ``status``, or never."""
    over = threading.Event()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status is None:
                over.wait(30)
                return
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "anyone"), [(200, True), (401, False), (403, False)])
def test_a_head_that_refuses_is_protected(status: int, anyone: bool) -> None:
    with head(status) as url:
        assert takes_anyone(url) is anyone


def test_a_head_that_answers_nonsense_is_not_taken_for_a_protected_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"nonsense\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(JobError, match="cannot tell whether it requires a token"):
            takes_anyone(f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("status", [500, 404, None])
def test_a_head_that_does_not_say_is_not_taken_for_a_protected_one(
    status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "PATIENCE_S", 0.3)
    with head(status) as url, pytest.raises(JobError, match="cannot tell whether it requires a token"):
        takes_anyone(url)
