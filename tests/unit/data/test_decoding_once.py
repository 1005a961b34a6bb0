"""How often images are decoded and copied: the counts that make input fast, whatever the machine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.cluster.launch import launch
from temper.cluster.streaming import _take
from temper.data import Images, ImageView, Plan, ShardSet, Windows, load_images


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was decoded so far, in a list that grows."""
    contents: list[bytes] = []
    decode = ImageView.decode

    def counted(view: ImageView, content: bytes, *rest: Any) -> np.ndarray:
        contents.append(content)
        return decode(view, content, *rest)

    monkeypatch.setattr(ImageView, "decode", counted)
    return contents


def test_a_run_decodes_an_image_once_whatever_its_epochs(
    decoded: list[bytes], digits: dict[str, Path], tiny_recipe: Any, tmp_path: Path
) -> None:
    launch(tiny_recipe(epochs=3, objective__adversary=None), tmp_path / "run")
    shards = [ShardSet.open(digits[task]) for task in ("target", "source")]
    assert len(decoded) == sum(len(one.rows(split)) for one in shards for split in ("train", "val"))


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stream_decodes_an_image_once_an_epoch_and_into_its_place(
    decoded: list[bytes], digits: dict[str, Path], world_size: int
) -> None:
    shards = ShardSet.open(digits["target"])
    whole = load_images(shards, "train", ImageView(8))
    decoded.clear()
    num_rows, seen = len(whole.rows), []
    for rank in range(world_size):
        windows = Windows(shards, Plan(num_rows, 16, 5, rank, world_size), view=ImageView(8))
        for position in range(len(windows)):
            part = windows.decode(1, position)
            place = np.searchsorted(whole.rows, part.rows)
            assert np.array_equal(part.images, whole.images[place])
            assert np.array_equal(part.labels, whole.labels[place])
            seen += part.rows.tolist()
    assert len(decoded) == len(seen) == len(set(seen))
    assert num_rows - len(seen) <= 1


def numbered(start: int, count: int) -> Images:
    rows = np.arange(start, start + count)
    return Images(np.repeat(rows.astype(np.uint8), 12).reshape(count, 3, 2, 2), rows % 3, rows)


def test_a_batch_of_a_stream_is_copied_once_and_the_rest_not_at_all() -> None:
    windows = [numbered(0, 5), numbered(5, 2), numbered(7, 9)]
    pending = list(windows)
    batches = [_take(pending, 3) for _ in range(4)]
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert all(np.array_equal(batch.images[:, 0, 0, 0], batch.rows) for batch in batches)
    assert [part.rows.tolist() for part in pending] == [[12, 13, 14, 15]]
    assert np.shares_memory(pending[0].images, windows[2].images)
    assert not any(np.shares_memory(b.images, window.images) for b in batches for window in windows)
