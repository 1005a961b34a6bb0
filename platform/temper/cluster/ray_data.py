"""Reading and decoding shards with Ray Data."""

from collections.abc import Generator, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch

from temper.cluster.capacity import num_cpus
from temper.data import (
    Batch,
    Fit,
    Images,
    Plan,
    ShardSet,
    Split,
    cycle,
    decode_rows,
    join,
    rows_within,
)
from temper.seeds import derive_seed

GROUPS_PER_WINDOW = 8
"""Row groups that are mixed with each other in a stream: 2,048 rows."""
EPOCHS_PER_PIPELINE = 200
"""As many as most runs have; a pipeline produces only as fast as it is read."""

MAX_DECODERS = 8
"""Tasks at once of each pipeline, at most."""


def load_images_with_ray(shards: ShardSet, split: Split, image_size: int, fit: Fit) -> Images:
    """``load_images``, decoded in parallel by the whole cluster; the same result."""
    import ray

    rows = shards.rows(split)
    groups = [group for group in shards.row_groups if len(rows_within(rows, group))]

    def decode_group(item: dict[str, Any]) -> dict[str, Any]:
        group = groups[item["id"]]
        part = decode_rows(shards, group, rows_within(rows, group), image_size, fit)
        return {"id": item["id"], "images": part.images, "labels": part.labels}

    # Each part goes to its place as it comes: all of them beside the whole would be twice its memory.
    images = np.empty((len(rows), 3, image_size, image_size), np.uint8)
    labels = np.empty(len(rows), np.int64)
    decoded = ray.data.range(len(groups), override_num_blocks=len(groups)).map(decode_group)
    for item in decoded.iter_rows():
        start = int(np.searchsorted(rows, groups[int(item["id"])].start))
        part = slice(start, start + len(item["labels"]))
        images[part], labels[part] = item["images"], item["labels"]
    return Images(images, labels, rows)


class StreamedBatches:
    """Batches of a training split too large for memory, decoded by Ray Data while the model trains.

    Windows of neighbouring row groups follow each other in an order, and rows within a window in an
    order, that are functions of (seed, epoch). One pipeline runs through all epochs, so that an epoch
    costs no start-up; a rank decodes only its own rows.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        image_size: int,
        fit: Fit,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_shares: int | None = None,
    ) -> None:
        rows = len(shards.rows("train"))
        plan = Plan(rows, batch_size, seed, rank, world_size, shares=num_shares)
        self._sizes = [size * len(plan.own) for size in plan.sizes()]
        self._windows = Windows(shards, plan, image_size, fit)
        self._pipeline: Iterator[Images] | None = None
        self._next_epoch = -1
        self._cycle: Iterator[Batch] | None = None
        self._cycle_position = 0
        self.num_batches = len(self._sizes)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        num_read, skip = self._windows.find(epoch, sum(self._sizes[:first])) if first else (0, 0)
        if self._pipeline is None or epoch != self._next_epoch or first:
            self._stop_reading()
            self._pipeline = self._windows.stream(epoch, num_read)
        self._next_epoch = -1  # until this epoch has been read to its end
        pending: list[Images] = []
        for size in self._sizes[first:]:
            while sum(len(part.labels) for part in pending) < size:
                pending.append(_part(next(self._pipeline), skip))
                num_read, skip = num_read + 1, 0
            data = _take(pending, size)
            yield Batch(*(torch.from_numpy(part) for part in (data.images, data.labels, data.rows)))
        for _ in range(len(self._windows) - num_read):
            next(self._pipeline)
        self._next_epoch = epoch + 1

    def cycle(self, start: int) -> Iterator[Batch]:
        # An epoch of the target ends somewhere in one of ours: the next goes on there, not anew.
        if self._cycle is None or start != self._cycle_position:
            self._cycle, self._cycle_position = cycle(self, start), start
        while True:
            batch = next(self._cycle)
            self._cycle_position += 1
            yield batch

    def close(self) -> None:
        self._stop_reading()
        self._cycle = None

    def _stop_reading(self) -> None:
        if isinstance(self._pipeline, Generator):
            self._pipeline.close()
        self._pipeline = None


def _part(images: Images, start: int, end: int | None = None) -> Images:
    """Some of ``images``, without a copy."""
    return Images(images.images[start:end], images.labels[start:end], images.rows[start:end])


def _take(pending: list[Images], count: int) -> Images:
    """The first ``count`` images out of ``pending``: copied once, for those of Ray's store are read-only."""
    taken: list[Images] = []
    while count:
        part = pending.pop(0)
        taken.append(_part(part, 0, count))
        if len(part.labels) > count:
            pending.insert(0, _part(part, count))
        count -= len(taken[-1].labels)
    return join(taken)


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

    def stream(self, first_epoch: int, position: int = 0) -> Iterator[Images]:
        """The windows of ``first_epoch`` from ``position`` on, then those of the next one, and so on."""
        for epoch in count(first_epoch, EPOCHS_PER_PIPELINE):
            yield from self._stream(epoch * len(self) + position, (epoch + EPOCHS_PER_PIPELINE) * len(self))
            position = 0

    def _stream(self, first: int, end: int) -> Iterator[Images]:
        """One pipeline, over the windows from number ``first`` up to ``end``, counted from epoch 0."""
        import ray

        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True

        def decode_window(item: dict[str, Any]) -> dict[str, Any]:
            part = self.decode(*divmod(int(item["position"]), len(self)))
            return {"images": part.images, "labels": part.labels, "rows": part.rows}

        decoders = max(1, min(MAX_DECODERS, num_cpus() // (2 * self._plan.world_size)))
        # Items, because Ray reads a range, and looks into arrays, with tasks that ask for a CPU.
        items = [{"position": position} for position in range(first, end)]
        with ray.data.DataContext.current(context):
            positions = ray.data.from_items(items, override_num_blocks=-(-len(items) // len(self)))
            # The tasks ask for no CPU: where training holds them all, they would wait for ever.
            windows = positions.map(decode_window, num_cpus=0, compute=ray.data.TaskPoolStrategy(decoders))
        for row in windows.iter_rows():
            yield Images(np.asarray(row["images"]), np.asarray(row["labels"]), np.asarray(row["rows"]))

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
        generator = np.random.default_rng(derive_seed(seed, "rows", epoch, window))
        rows = generator.permutation(self._window_rows[window])
        low, high = np.searchsorted(self._mine, [start, start + len(rows)])
        return window, rows[self._mine[low:high] - start]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(derive_seed(self._plan.seed, "windows", epoch)).permutation(len(self))
