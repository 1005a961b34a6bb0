import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from temper.errors import RecordError
from temper.records import SavedImages, read_saved_images, write_saved_images
from temper.spec import Threat


@pytest.fixture
def saved() -> SavedImages:
    generator = np.random.default_rng(0)
    return SavedImages(
        threat=Threat(norm="l2", eps=0.5),
        images=generator.random((4, 3, 8, 8), dtype=np.float32),
        rows=np.array([2, 3, 5, 70]),
        labels=np.array([0, 1, 1, 0]),
        predictions=np.array([1, 0, -1, 2]),
    )


def test_they_come_back_as_they_were(saved: SavedImages, tmp_path: Path) -> None:
    write_saved_images(tmp_path / "a.safetensors", saved)
    back = read_saved_images(tmp_path / "a.safetensors")
    assert back.threat == saved.threat
    for name in ("images", "rows", "labels", "predictions"):
        np.testing.assert_array_equal(getattr(back, name), getattr(saved, name))
    write_saved_images(tmp_path / "b.safetensors", saved)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_none_at_all_come_back_too(saved: SavedImages, tmp_path: Path) -> None:
    none = {name: getattr(saved, name)[:0] for name in ("images", "rows", "labels", "predictions")}
    write_saved_images(tmp_path / "a.safetensors", replace(saved, **none))
    assert read_saved_images(tmp_path / "a.safetensors").images.shape == (0, 3, 8, 8)


def test_they_are_never_overwritten(saved: SavedImages, tmp_path: Path) -> None:
    write_saved_images(tmp_path / "a.safetensors", saved)
    with pytest.raises(RecordError, match="never overwritten"):
        write_saved_images(tmp_path / "a.safetensors", saved)


def test_damaged_files_are_refused(saved: SavedImages, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(RecordError, match=r"a\.safetensors: not readable"):
        read_saved_images(path)
    write_saved_images(path, saved)
    whole = path.read_bytes()
    for content in (b"", whole[:-1], b"\x80\x04K\x01.", b"{}" + whole):
        path.write_bytes(content)
        with pytest.raises(RecordError, match=r"a\.safetensors: not readable"):
            read_saved_images(path)


WRONG = {
    "rows are int64": {"rows": np.array([1, 2])},
    "labels are int32": {"labels": np.zeros(4, np.int32)},
    "images are float64": {"images": np.zeros((4, 3, 8, 8))},
    "images are float32": {"images": np.zeros((4, 8, 8), np.float32)},
    "occurs twice": {"rows": np.array([1, 2, 2, 3])},
}


@pytest.mark.parametrize("message", WRONG)
def test_arrays_of_another_kind_are_refused(saved: SavedImages, tmp_path: Path, message: str) -> None:
    arrays = {name: getattr(saved, name) for name in ("images", "rows", "labels", "predictions")}
    described = json.dumps({"format": "1", "threat": {"norm": "l2", "eps": 0.5}})
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(arrays | WRONG[message], metadata={"temper": described}))
    with pytest.raises(RecordError, match=message):
        read_saved_images(path)


@pytest.mark.parametrize(
    "described",
    [None, {}, {"temper": "no JSON"}, {"temper": '{"format": "2"}'}, {"temper": '{"format": "1"}'}],
    ids=str,
)
def test_another_description_is_refused(
    saved: SavedImages, tmp_path: Path, described: dict[str, str] | None
) -> None:
    arrays = {name: getattr(saved, name) for name in ("images", "rows", "labels", "predictions")}
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(arrays, metadata=described))
    with pytest.raises(RecordError, match=r"a\.safetensors"):
        read_saved_images(path)
