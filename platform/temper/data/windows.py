"""The order in which a training split too large for memory is read: windows of neighbouring row groups."""

import numpy as np

from temper.data.decode import Fit, Images, decode_rows, rows_within
from temper.data.plan import Plan
from temper.data.shard_set import ShardSet
from temper.seeds import derive_seed

GROUPS_PER_WINDOW = 8
"""Row groups that are mixed with each other in a stream: 2,048 rows."""


class Windows:
    """The windows of a training split: which rows each holds for this rank, and their images."""

    def __init__(self, shards: ShardSet, plan: Plan, image_size: int, fit: Fit) -> None:
        self._shards, self._plan, self._image_size, self._fit = shards, plan, image_size, fit
        self._rows = shards.rows("train")
        groups = [group for group in shards.row_groups if len(rows_within(self._rows, group))]
        starts = range(0, len(groups), GROUPS_PER_WINDOW)
        self._windows = [groups[start : start + GROUPS_PER_WINDOW] for start in starts]
        self._window_rows = [
            np.concatenate([rows_within(self._rows, group) for group in window]) for window in self._windows
        ]
        # Positions in an epoch's global order that are this rank's, ascending.
        self._mine = np.concatenate(list(plan.share(np.arange(len(self._rows)))))

    def __len__(self) -> int:
        return len(self._windows)

    def find(self, epoch: int, start: int) -> tuple[int, int]:
        """Position of the window with this rank's row number ``start`` of ``epoch``, and its place in it."""
        ends = np.cumsum([len(self._window_rows[index]) for index in self._order(epoch)])
        num_own = np.searchsorted(self._mine, ends)
        position = int(np.searchsorted(num_own, start, side="right"))
        return position, start - (int(num_own[position - 1]) if position else 0)

    def decode(self, epoch: int, position: int) -> Images:
        """The images of this rank in the window at ``position`` of ``epoch``, in their order."""
        window, rows = self.order(epoch, position)
        images = np.empty((len(rows), 3, self._image_size, self._image_size), np.uint8)
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
                    self._image_size,
                    self._fit,
                    into=images,
                    places=places,
                ).labels
        return Images(images, labels, rows)

    def order(self, epoch: int, position: int) -> tuple[int, np.ndarray]:
        """Which window stands at ``position`` of ``epoch``, and this rank's rows of it in their order."""
        seed = self._plan.seed
        order = self._order(epoch)
        window = int(order[position])
        start = sum(len(self._window_rows[int(index)]) for index in order[:position])
        if len(self) == 1:
            rows = self._window_rows[window][self._plan.order(epoch)]  # as resident images have it
        else:
            generator = np.random.default_rng(derive_seed(seed, "rows", epoch, window))
            rows = generator.permutation(self._window_rows[window])
        low, high = np.searchsorted(self._mine, [start, start + len(rows)])
        return window, rows[self._mine[low:high] - start]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(derive_seed(self._plan.seed, "windows", epoch)).permutation(len(self))
