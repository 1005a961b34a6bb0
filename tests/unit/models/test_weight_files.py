import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from temper.errors import ModelError
from temper.models.weight_files import check_digest, fetch_weights, read_weights

REQUESTS: list[str] = []


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and remembers what was asked for."""

    def log_message(self, *args: Any) -> None:
        REQUESTS.append(self.path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server of ``tmp_path / "served"``; torch's cache is under ``tmp_path / "torch"``."""
    REQUESTS.clear()
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def serve(tmp_path: Path, state: Any) -> str:
    """Put a weights file onto the server; its digest."""
    path = tmp_path / "served" / "w.pth"
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_url_is_fetched_once(tmp_path: Path, server: str) -> None:
    digest = serve(tmp_path, {"a": torch.ones(2)})
    first = fetch_weights(f"{server}/w.pth?download=1", digest)
    assert first == tmp_path / "torch" / "hub" / "checkpoints" / f"{digest}.pth"
    assert torch.equal(read_weights(first)["a"], torch.ones(2))
    assert fetch_weights(f"{server}/w.pth", digest) == first
    assert len(REQUESTS) == 1
    first.write_bytes(b"damaged since")
    assert read_weights(fetch_weights(f"{server}/w.pth", digest)).keys() == {"a"}
    assert len(REQUESTS) == 2


def test_a_file_url(tmp_path: Path, server: str) -> None:
    digest = serve(tmp_path, {"a": torch.ones(2)})
    assert read_weights(fetch_weights((tmp_path / "served/w.pth").as_uri(), digest)).keys() == {"a"}


def test_a_wrong_digest_leaves_nothing(tmp_path: Path, server: str) -> None:
    digest = serve(tmp_path, {"a": torch.ones(2)})
    with pytest.raises(ModelError, match=rf"^model.sha256: {server}/w.pth is another file .*{digest}"):
        fetch_weights(f"{server}/w.pth", "0" * 64)
    assert not [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("url", "digest", "message"),
    [
        ("{}/missing.pth", "0" * 64, "/missing.pth could not be downloaded .*404"),
        ("http://127.0.0.1:9/w.pth", "0" * 64, "could not be downloaded .*; download it elsewhere"),
        ("{}/w.pth", None, "model.sha256: required for weights from a URL"),
        ("s3://bucket/w.pth", "0" * 64, "unsupported scheme s3://; allowed: https, http, file"),
    ],
)
def test_what_cannot_be_fetched(server: str, url: str, digest: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fetch_weights(url.format(server), digest)


def test_the_digest_of_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"weights")
    check_digest(path, None)
    check_digest(path, hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(ModelError, match=r"is another file: its SHA-256 is .*, expected 1111"):
        check_digest(path, "1" * 64)
    with pytest.raises(ModelError, match="cannot be read"):
        check_digest(tmp_path / "none", "1" * 64)


@pytest.mark.parametrize(
    "content", [{}, {"state_dict": {}}, {"epoch": 3}, {"model": {"a": 1}}, [torch.ones(1)], {"net": [1]}]
)
def test_files_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match=r"holds no state dict .* under state_dict, model_state_dict, model, net"
    ):
        read_weights(tmp_path / "w.pt")
