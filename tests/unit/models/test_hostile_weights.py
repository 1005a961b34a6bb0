"""Weights files that would run code, lie about their sizes, or are damaged: one error, nothing executed."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from temper.errors import CheckpointError, ModelError
from temper.models import TaskModel, load_model_state, save_model
from temper.models.weight_files import read_weights

MIB = 2**20


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def in_a_zip(path: Path, mark: Path) -> None:
    torch.save({"a": torch.ones(2), "b": Runs(mark)}, path)


def as_before_zips(path: Path, mark: Path) -> None:
    torch.save({"a": Runs(mark)}, path, _use_new_zipfile_serialization=False)


def as_plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Runs(mark)}))


@pytest.mark.parametrize("write", [in_a_zip, as_before_zips, as_plain_pickle], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.safetensors", "w"])
def test_a_pickle_is_never_run(tmp_path: Path, write: Any, name: str) -> None:
    mark = tmp_path / "executed"
    write(tmp_path / name, mark)
    with pytest.raises(ModelError, match=rf"{name} is not a safetensors file or plain state dict"):
        read_weights(tmp_path / name)
    assert not mark.exists()
    # The file would have done it: otherwise this test would prove nothing.
    if write is as_plain_pickle:
        pickle.loads((tmp_path / name).read_bytes())  # our own
        assert mark.exists()


def safetensors(header: Any, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "a header of 2^63 bytes": safetensors({}, b"", 2**63),
    "a header beyond the file": safetensors({"a": entry([1], 0, 4)}, b"0000", 10_000),
    "a header of 0 bytes": safetensors(b"", b""),
    "a size beyond the file": safetensors({"a": entry([2**20], 0, 2**22)}, b"0000"),
    "a shape larger than its data": safetensors({"a": entry([10**9], 0, 4)}, b"0000"),
    "a shape that overflows": safetensors({"a": entry([2**40, 2**40], 0, 4)}, b"0000"),
    "negative offsets": safetensors({"a": entry([1], -4, 0)}, b"0000"),
    "offsets the wrong way round": safetensors({"a": entry([1], 4, 0)}, b"0000"),
    "tensors that overlap": safetensors({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"0000"),
    "bytes that are nobody's": safetensors({"a": entry([1], 0, 4)}, b"0" * 400),
    "an unknown type": safetensors({"a": entry([1], 0, 4, "PICKLE")}, b"0000"),
    "no JSON": safetensors(b"not json at all", b""),
    "deep JSON": safetensors(b"[" * 100_000, b""),
    "a list": safetensors([1], b""),
    "an empty file": b"",
    "two bytes": b"ab",
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
def test_a_safetensors_header_that_lies(tmp_path: Path, model: TaskModel, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is not a safetensors file"):
        read_weights(path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a checkpoint of this model"):
        load_model_state(model, path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**6, 10**6),  # four terabytes out of four bytes
        torch.eye(3).to_sparse(),
        torch.empty(3, device="meta"),
    ],
    ids=["expanded", "sparse", "meta"],
)
def test_tensors_that_are_not_what_they_seem(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"weight": tensor}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt: 'weight' is not a plain dense tensor"):
        read_weights(tmp_path / "w.pt")
    torch.save({"weight": torch.ones(4, 4).t()[1:]}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")["weight"].shape == (3, 4)


def spoilt(content: bytes, generator: np.random.Generator, first: int) -> bytes:
    place = int(generator.integers(first))
    changed = bytearray(content)
    changed[place] ^= int(generator.integers(1, 256))
    return bytes(changed) if generator.integers(3) else content[:place]


def test_a_checkpoint_with_any_byte_changed_loads_or_is_refused(tmp_path: Path, model: TaskModel) -> None:
    """Bytes of weights have no check of their own: records carry the file's SHA-256. The header has."""
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    (size,) = struct.unpack("<Q", content[:8])
    refused: list[str] = []
    for _ in range(300):
        path.write_bytes(spoilt(content, generator, 8 + size))
        try:
            load_model_state(model, path)
        except CheckpointError as problem:
            refused.append(str(problem))
    assert len(refused) > 250
    assert all("model.safetensors: not a checkpoint of this model" in reason for reason in refused)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_state_dict_of_torch_with_any_byte_changed_loads_or_is_refused(
    tmp_path: Path, is_zip: bool
) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(3), "b": torch.ones(2, 2)}, path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    generator = np.random.default_rng(1)
    refused: list[str] = []
    for _ in range(300):
        path.write_bytes(spoilt(content, generator, len(content)))
        try:
            read_weights(path)
        except ModelError as problem:
            refused.append(str(problem))
    assert len(refused) > 80
    assert all(len(reason.splitlines()) == 1 for reason in refused)


def test_a_folder_in_the_place_of_a_checkpoint(tmp_path: Path, model: TaskModel) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="not a checkpoint of this model"):
        load_model_state(model, tmp_path / "model.safetensors")


def test_weights_of_another_type_are_refused(tmp_path: Path, model: TaskModel) -> None:
    tensors = {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()
    }
    name = next(name for name in tensors if name.endswith("weight"))
    changed = tensors[name].to(torch.complex64)
    save_file({**tensors, name: changed}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match=rf"not a checkpoint of this model .*complex: {name}"):
        load_model_state(model, tmp_path / "c.safetensors")
