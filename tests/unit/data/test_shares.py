"""Global batches and their shares: the same whatever the number of ranks, and wherever an epoch goes on."""

from pathlib import Path

import numpy as np
import pytest

from temper.batches import ResidentBatches
from temper.data import Images, Plan, ShardSet, Windows, join


@pytest.mark.parametrize("num_rows", [8, 61, 64, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_shares_are_the_same_for_any_number_of_ranks(num_rows: int, world_size: int) -> None:
    order = np.random.default_rng(0).permutation(num_rows)
    whole = Plan(num_rows, 7, seed=3, shares=4)
    expected, start = [], 0
    for size in whole.sizes():
        expected.append([order[start + share * size : start + (share + 1) * size] for share in range(4)])
        start += 4 * size
    for rank in range(world_size):
        plan = Plan(num_rows, 7, seed=3, rank=rank, world_size=world_size, shares=4)
        assert plan.sizes() == whole.sizes()
        for part, shares in zip(plan.share(order), expected, strict=True):
            assert part.tolist() == np.concatenate([shares[own] for own in plan.own]).tolist()


@pytest.mark.parametrize("first", [0, 1, 3])
def test_an_epoch_goes_on_at_any_batch(first: int) -> None:
    images = Images(np.zeros((50, 3, 8, 8), np.uint8), np.zeros(50, np.int64), np.arange(50))
    batches = ResidentBatches(images, batch_size=4, seed=0, rank=1, world_size=2, num_shares=3)
    whole = [batch.rows.tolist() for batch in batches.epoch(1)]
    assert len(whole) == batches.num_batches == 4
    assert [batch.rows.tolist() for batch in batches.epoch(1, first)] == whole[first:]
    (batch,) = ResidentBatches(images, batch_size=50, seed=0).epoch(0)
    parts = batch.split(5)
    assert [row for part in parts for row in part.rows.tolist()] == batch.rows.tolist()
    assert {len(part.rows) for part in parts} == {10}


def rows_of(windows: Windows, epoch: int, position: int) -> np.ndarray:
    return join([windows.decode(epoch, number) for number in range(position, len(windows))]).rows


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2), (2, 3)])
def test_a_stream_goes_on_without_decoding_what_was_used(
    rank: int, world_size: int, digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("temper.data.windows.GROUPS_PER_WINDOW", 1)
    shards = ShardSet.open(digits["target"])
    num_rows = len(shards.rows("train"))
    plan = Plan(num_rows, 16, 5, rank, world_size, shares=4)
    windows = Windows(shards, plan, image_size=8, fit="pad")
    assert len(windows) > 2
    whole = rows_of(windows, 1, 0)
    sizes = [size * len(plan.own) for size in plan.sizes()]
    assert len(whole) == sum(sizes)
    decoded = set()
    for number in range(len(sizes)):
        position, skip = windows.find(1, sum(sizes[:number]))
        assert rows_of(windows, 1, position)[skip:].tolist() == whole[sum(sizes[:number]) :].tolist()
        decoded.add(position)
    assert len(decoded) > 1, "late batches decode fewer windows"
