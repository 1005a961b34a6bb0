"""Whether a head may be trusted with code: whose address it is, and whether it asks for a token."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from temper.cluster.jobs import address
from temper.cluster.jobs.address import is_near, takes_anyone
from temper.errors import JobError


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
    ],
)
def test_only_a_loopback_address_is_near(url: str, near: bool) -> None:
    assert is_near(url) is near


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


@pytest.mark.parametrize("status", [500, 404, None])
def test_a_head_that_does_not_say_is_not_taken_for_a_protected_one(
    status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "PATIENCE_S", 0.3)
    with head(status) as url, pytest.raises(JobError, match="cannot tell whether it requires a token"):
        takes_anyone(url)
