"""Batches and their shares: the same whatever the number of ranks, and wherever an epoch goes on."""

from pathlib import Path

import numpy as np
import pytest

from temper.batches import ResidentBatches
from temper.data import (
    Images,
    ImageView,
    Plan,
    ShardSet,
    Windows,
    join,
    load_images,
    num_filled,
    parts_of,
    window_sizes,
)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 64, 65])
@pytest.mark.parametrize("num_shares", [1, 2, 3, 4, 9])
def test_shares_of_a_batch_are_as_equal_as_can_be_and_none_is_of_one_image(
    size: int, num_shares: int
) -> None:
    parts = parts_of(size, num_shares)
    assert [place for part in parts for place in range(part.start, part.end)] == list(range(size))
    filled = [len(part) for part in parts if len(part)]
    assert max(filled) - min(filled) <= 1
    assert min(filled) >= min(2, size)
    assert len(filled) == num_filled(size, num_shares) >= min(num_shares, size // 2)
    assert not any(map(len, parts[len(filled) :]))
    assert sum(part.weight for part in parts) == pytest.approx(num_shares)


@pytest.mark.parametrize("num_rows", [8, 61, 64, 100, 113])
@pytest.mark.parametrize("batch_size", [8, 28, 37])
@pytest.mark.parametrize("shares", [None, 4])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_batches_are_those_of_one_worker_for_any_number_of_ranks(
    num_rows: int, batch_size: int, shares: int | None, world_size: int
) -> None:
    alone = Plan(num_rows, batch_size, seed=3)
    whole = [batch.tolist() for batch in alone.share(alone.order(2))]
    assert 0 <= num_rows - sum(map(len, whole)) <= 1
    found: list[dict[int, list[int]]] = [{} for _ in whole]
    for rank in range(world_size):
        plan = Plan(num_rows, batch_size, seed=3, rank=rank, world_size=world_size, shares=shares)
        batches = zip(found, plan.share(plan.order(2)), plan.parts(), strict=True)
        for batch, own, parts in batches:
            assert len(own) == sum(map(len, parts))
            for part in parts:
                batch[part.start] = own[: len(part)].tolist() or batch.get(part.start, [])
                own = own[len(part) :]
    assert [[row for start in sorted(batch) for row in batch[start]] for batch in found] == whole


@pytest.mark.parametrize("first", [0, 1, 3])
def test_an_epoch_goes_on_at_any_batch(first: int) -> None:
    images = Images(np.zeros((50, 3, 8, 8), np.uint8), np.zeros(50, np.int64), np.arange(50))
    batches = ResidentBatches(images, batch_size=12, seed=0, rank=1, world_size=2, num_shares=3)
    whole = [batch.rows.tolist() for batch in batches.epoch(1)]
    assert len(whole) == batches.num_batches == 5
    assert [batch.rows.tolist() for batch in batches.epoch(1, first)] == whole[first:]
    (batch,) = ResidentBatches(images, batch_size=50, seed=0, num_shares=4).epoch(0)
    parts = batch.split()
    assert [row for part in parts for row in part.rows.tolist()] == batch.rows.tolist()
    assert [len(part.rows) for part in parts] == [12, 13, 12, 13]
    assert [part.parts[0].start for part in parts] == [0, 12, 25, 37]


def rows_of(windows: Windows, epoch: int, position: int) -> np.ndarray:
    return join([windows.decode(epoch, number) for number in range(position, len(windows))]).rows


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2), (2, 3)])
def test_a_stream_goes_on_without_decoding_what_was_used(
    rank: int, world_size: int, digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("temper.data.windows.GROUPS_PER_WINDOW", 1)
    shards = ShardSet.open(digits["target"])
    num_rows = len(shards.rows("train"))
    plan = Plan(num_rows, 64, 5, rank, world_size, shares=4)
    windows = Windows(shards, plan, view=ImageView(8))
    assert len(windows) > 2
    whole = rows_of(windows, 1, 0)
    sizes = [sum(map(len, parts)) for parts in plan.parts()]
    assert len(whole) == sum(sizes)
    decoded = set()
    for number in range(len(sizes)):
        position, skip = windows.find(1, sum(sizes[:number]))
        assert rows_of(windows, 1, position)[skip:].tolist() == whole[sum(sizes[:number]) :].tolist()
        decoded.add(position)
    assert len(decoded) > 1, "late batches decode fewer windows"


@pytest.mark.parametrize("groups_per_window", [1, 2, 8])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_stream_has_the_order_of_resident_images(
    world_size: int, groups_per_window: int, digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many windows there are: where a split is kept is no matter of results."""
    monkeypatch.setattr("temper.data.windows.GROUPS_PER_WINDOW", groups_per_window)
    shards = ShardSet.open(digits["target"])
    images = load_images(shards, "train", ImageView(8))
    used = []
    for rank in range(world_size):
        windows = Windows(shards, Plan(len(images.rows), 37, 5, rank, world_size), view=ImageView(8))
        assert (len(windows) == 1) == (groups_per_window == 8)
        resident = ResidentBatches(
            images, batch_size=37, seed=5, rank=rank, world_size=world_size, windows=window_sizes(shards)
        )
        for epoch in (0, 3):
            rows = [row for batch in resident.epoch(epoch) for row in batch.rows.tolist()]
            assert rows_of(windows, epoch, 0).tolist() == rows
            used += rows if epoch == 0 else []
    assert len(set(used)) == len(used) >= len(images.rows) - 1
