import functools
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from temper.errors import ModelError
from temper.models.weight_entries import load_exactly, sort_entries
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


RAW, AVERAGED = {"a": torch.zeros(1)}, {"a": torch.ones(1)}


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        ({"state_dict": RAW, "state_dict_ema": AVERAGED, "epoch": 3}, "state_dict_ema"),
        ({"model": RAW, "model_ema": AVERAGED}, "model_ema"),
        ({"model": RAW, "ema": {"module": AVERAGED, "updates": 9}}, r"ema\.module"),
        ({"params": RAW, "params_ema": AVERAGED}, "params_ema"),
        ({"weights": RAW, "swa_model": AVERAGED}, "swa_model"),
        ({"online_model.a": RAW["a"], "ema_model.a": AVERAGED["a"], "step": RAW["a"]}, r"ema_model\.\*"),
    ],
)
def test_of_raw_and_averaged_weights_the_averaged_are_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Any, taken: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt") == AVERAGED
    assert re.search(rf"w\.pt: the averaged weights \({taken}\) are taken, not the raw ones", caplog.text)


def test_averaged_weights_alone_and_raw_ones_alone_need_no_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for content in (
        {"ema_state_dict": AVERAGED, "epoch": 3},
        {"state_dict": AVERAGED, "state_dict_ema": None},
    ):
        torch.save(content, tmp_path / "w.pt")
        assert read_weights(tmp_path / "w.pt") == AVERAGED
    assert not caplog.text


def test_averaged_weights_that_are_not_understood_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": RAW, "ema": {"decay": 0.9, "shadow": [torch.ones(1)]}}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt") == RAW
    assert "the raw weights (model) are taken: ema is the keys decay (float), shadow (list)" in caplog.text


def test_keys_that_were_found_are_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "student": {"a": torch.ones(1)}}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"it holds the keys epoch \(int\), student \(dict of 1\); save the"):
        read_weights(tmp_path / "w.pt")


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer; .*pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page; download the file itself"),
        (b"", "the file is empty"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x1f\x8b\x08", "a gzip file; unpack it first"),
    ],
)
def test_what_lies_there_instead_of_weights(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_whole_model_is_refused_without_advice_to_load_it_unsafely(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    script = torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1))  # type: ignore[no-untyped-call]
    script.save(str(tmp_path / "script.pt"))
    for name, message in (
        ("model.pt", r"pickled objects: torch\.nn\.modules\."),
        ("script.pt", "TorchScript"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            read_weights(tmp_path / name)
        assert "state_dict() instead" in str(caught.value)
        assert not re.search(r"weights_only|trust|options|\n", str(caught.value))


def test_an_averaged_model_of_torch_and_a_prefix_that_is_not_understood(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    averaged = torch.optim.swa_utils.AveragedModel(network)
    entries = sort_entries(averaged.state_dict(), network, "w.pt")
    load_exactly(network, entries.backbone, "w.pt")
    moved = {f"encoder.q.{name}": tensor for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match=r"are there with the prefix encoder\.q\., which is not understood"):
        load_exactly(network, sort_entries(moved, network, "w.pt").backbone, "w.pt")


@pytest.mark.parametrize(
    "beside",
    [
        {"averaged_model": {f"module.{index}": torch.ones(1) for index in range(6)}},
        {"ema_callback": {"decay": 0.9, "shadow_params": [torch.ones(1)] * 6}},
        {"callbacks": {"EMA": {"every": 1, "state": {"ema_weights": [torch.ones(1)] * 6}}}},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_other_weights_of_a_file_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, beside: dict[str, Any]
) -> None:
    raw = {f"{index}": torch.zeros(1) for index in range(6)}
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"net": raw, "optimizer": optimizer.state_dict()}, tmp_path / "plain.pt")
    read_weights(tmp_path / "plain.pt")
    assert caplog.text == "", "an optimizer's averages are no weights"
    torch.save({"net": raw, "optimizer": optimizer.state_dict(), **beside}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt") == raw
    assert f"w.pt: the weights in net are taken, not those in {next(iter(beside))}" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.tensor([float("inf")], dtype=dtype), "b": torch.arange(3)}
    bad = tensors | {"c": torch.tensor([1.0, float("nan")], dtype=dtype)}
    for path, write in ((tmp_path / "w.pt", torch.save), (tmp_path / "w.safetensors", save_file)):
        write(tensors, path)
        assert read_weights(path).keys() == {"a", "b"}
        write(bad, path)
        with pytest.raises(
            ModelError, match=rf"{path.name} holds NaN in 'c': the training .* diverged; take"
        ):
            read_weights(path)


def test_infinity_and_integers_are_no_weights(tmp_path: Path) -> None:
    """Those of masks and counters are read."""
    plain = {"0.weight": torch.ones(2), "mask": torch.tensor([-float("inf")]), "0.steps": torch.arange(2)}
    torch.save(plain, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == plain.keys()
    for bad, message in (
        (
            torch.tensor([1.0, float("inf")]),
            r"w\.pt holds infinity in '1\.bias': .*diverged; take an",
        ),
        (torch.ones(2, dtype=torch.int8), r"w\.pt holds integers in '1\.bias': .*quantized model"),
    ):
        torch.save(plain | {"1.bias": bad}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=message):
            read_weights(tmp_path / "w.pt")


def test_files_under_another_name_are_read_or_told(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2000)}
    save_file(tensors, tmp_path / "pytorch_model.bin")
    assert torch.equal(read_weights(tmp_path / "pytorch_model.bin")["a"], tensors["a"])
    torch.save(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"a file of torch\.save under another name; call it \.pth"):
        read_weights(tmp_path / "w.safetensors")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "w.safetensors").read_bytes()[:4000])
    with pytest.raises(ModelError, match="ends too early; copy or download it again"):
        read_weights(tmp_path / "cut.pth")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(ModelError, match="an ONNX model"):
        read_weights(tmp_path / "net.onnx")
