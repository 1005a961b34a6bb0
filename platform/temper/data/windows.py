"""The order in which a large training split is read: windows of neighbouring row groups.

It is the same whether the split is streamed, for want of memory, or resident.
"""

from dataclasses import replace

import numpy as np

from temper.data.decode import Images, decode_rows, rows_within
from temper.data.image_view import ImageView
from temper.data.plan import Plan
from temper.data.shard_set import RowGroup, ShardSet

GROUPS_PER_WINDOW = 8
"""Row groups that are mixed with each other: 2,048 rows."""


def windows_of(shards: ShardSet) -> tuple[list[list[RowGroup]], list[np.ndarray]]:
    """The row groups of each window of the training split, and its rows there (N,), ascending."""
    rows = shards.rows("train")
    groups = [group for group in shards.row_groups if len(rows_within(rows, group))]
    starts = range(0, len(groups), GROUPS_PER_WINDOW)
    windows = [groups[start : start + GROUPS_PER_WINDOW] for start in starts]
    return windows, [np.concatenate([rows_within(rows, group) for group in window]) for window in windows]


def window_sizes(shards: ShardSet) -> tuple[int, ...]:
    """Rows in each window of the training split."""
    return tuple(len(rows) for rows in windows_of(shards)[1])


class Windows:
    """The windows of a training split: which rows each holds for this rank, and their images."""

    def __init__(self, shards: ShardSet, plan: Plan, view: ImageView) -> None:
        self._shards, self._view = shards, view
        self._windows, self._window_rows = windows_of(shards)
        self._plan = replace(plan, windows=tuple(len(rows) for rows in self._window_rows))
        # Positions in an epoch's global order that are this rank's, ascending.
        self._mine = np.concatenate(list(plan.share(np.arange(plan.num_rows))))

    def __len__(self) -> int:
        return len(self._windows)

    def find(self, epoch: int, start: int) -> tuple[int, int]:
        """Position of the window with this rank's row number ``start`` of ``epoch``, and its place in it."""
        ends = np.cumsum([len(self._window_rows[index]) for index in self._plan.window_order(epoch)])
        num_own = np.searchsorted(self._mine, ends)
        position = int(np.searchsorted(num_own, start, side="right"))
        return position, start - (int(num_own[position - 1]) if position else 0)

    def decode(self, epoch: int, position: int) -> Images:
        """The images of this rank in the window at ``position`` of ``epoch``, in their order."""
        window, rows = self.order(epoch, position)
        images = self._view.empty(len(rows))
        labels = np.empty(len(rows), np.int64)
        by_row = np.argsort(rows)
        for group in self._windows[window]:
            low, high = np.searchsorted(rows, [group.start, group.start + group.num_rows], sorter=by_row)
            places = by_row[low:high]
            if len(places):
                labels[places] = decode_rows(
                    self._shards,
                    group,
                    rows[places],
                    self._view,
                    into=images,
                    places=places,
                ).labels
        return Images(images, labels, rows)

    def order(self, epoch: int, position: int) -> tuple[int, np.ndarray]:
        """Which window stands at ``position`` of ``epoch``, and this rank's rows of it in their order."""
        order = self._plan.window_order(epoch)
        window = int(order[position])
        start = sum(len(self._window_rows[int(index)]) for index in order[:position])
        places = self._plan.order(epoch) if len(self) == 1 else self._plan.order_within(epoch, window)
        rows = self._window_rows[window][places]
        low, high = np.searchsorted(self._mine, [start, start + len(rows)])
        return window, rows[self._mine[low:high] - start]
