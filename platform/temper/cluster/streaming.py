"""Reading and decoding shards with Ray Data."""

import time
from collections.abc import Generator, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch

from temper.batches import Batch, cycle
from temper.cluster.resources import num_cpus
from temper.data import (
    Images,
    ImageView,
    Part,
    Plan,
    ShardSet,
    Split,
    Windows,
    decode_rows,
    join,
    rows_within,
)

EPOCHS_PER_PIPELINE = 200
"""As many as most runs have; a pipeline produces only as fast as it is read."""

MAX_DECODERS = 8
"""Tasks at once of each pipeline, at most."""


def load_images_with_ray(shards: ShardSet, split: Split, view: ImageView) -> Images:
    """``load_images``, decoded in parallel by the whole cluster; the same result."""
    import ray

    rows = shards.rows(split)
    groups = [group for group in shards.row_groups if len(rows_within(rows, group))]

    def decode_group(item: dict[str, Any]) -> dict[str, Any]:
        group = groups[item["id"]]
        part = decode_rows(shards, group, rows_within(rows, group), view)
        return {"id": item["id"], "images": part.images, "labels": part.labels}

    # Each part goes to its place as it comes: all of them beside the whole would be twice its memory.
    images = view.empty(len(rows))
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
        view: ImageView,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_shares: int | None = None,
    ) -> None:
        self._shards, self._view = shards, view
        self._batch_size, self._rank = batch_size, rank
        rows = len(shards.rows("train"))
        plan = Plan(rows, batch_size, seed, rank, world_size, shares=num_shares)
        self._parts = plan.parts()
        self._sizes = [sum(map(len, parts)) for parts in self._parts]
        self._windows = Windows(shards, plan, view)
        self._world_size = world_size
        self._pipeline: Iterator[Images] | None = None
        self._next_epoch = -1
        self._cycle: Iterator[Batch] | None = None
        self._cycle_position = 0
        self.num_batches = len(self._sizes)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        num_read, skip = self._windows.find(epoch, sum(self._sizes[:first])) if first else (0, 0)
        if self._pipeline is None or epoch != self._next_epoch or first:
            self._stop_reading()
            self._pipeline = _stream(self._windows, self._world_size, epoch, num_read)
        self._next_epoch = -1  # until this epoch has been read to its end
        pending: list[Images] = []
        for size, parts in zip(self._sizes[first:], self._parts[first:], strict=True):
            while sum(len(part.labels) for part in pending) < size:
                pending.append(_part(next(self._pipeline), skip))
                num_read, skip = num_read + 1, 0
            yield _batch(_take(pending, size) if size else self._nothing(), parts)
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

    def once(self, limit: int, seed: int) -> Iterator[Batch]:
        """Each rank decodes every ``world_size``-th window whole, so that no image is left out."""
        shards = self._shards.training_subset(limit, seed)
        plan = Plan(len(shards.rows("train")), batch_size=1, seed=seed)
        windows = Windows(shards, plan, self._view)
        mine = range(self._rank, len(windows), self._world_size)
        for images in _pipeline(windows, self._world_size, mine, num_blocks=len(mine)):
            for start in range(0, len(images.labels), self._batch_size):
                yield _batch(join([_part(images, start, start + self._batch_size)]))

    def _nothing(self) -> Images:
        """What is this rank's of a batch of fewer images than shares."""
        nobody = np.empty(0, np.int64)
        return Images(self._view.empty(0), nobody, nobody)

    def close(self) -> None:
        self._stop_reading()
        self._cycle = None

    def _stop_reading(self) -> None:
        if isinstance(self._pipeline, Generator):
            self._pipeline.close()
        self._pipeline = None


def _batch(images: Images, parts: tuple[Part, ...] = ()) -> Batch:
    pixels, labels, rows = (torch.from_numpy(one) for one in (images.images, images.labels, images.rows))
    return Batch(pixels, labels, rows, parts)


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


def _stream(windows: Windows, world_size: int, first_epoch: int, position: int) -> Iterator[Images]:
    """The windows of ``first_epoch`` from ``position`` on, then those of the next one, and so on."""
    for epoch in count(first_epoch, EPOCHS_PER_PIPELINE):
        mine = range(epoch * len(windows) + position, (epoch + EPOCHS_PER_PIPELINE) * len(windows))
        yield from _pipeline(windows, world_size, mine, num_blocks=-(-len(mine) // len(windows)))
        position = 0


def _pipeline(windows: Windows, world_size: int, positions: range, num_blocks: int) -> Iterator[Images]:
    """The windows at ``positions``, counted from epoch 0, decoded by Ray Data; a block is a task's work."""
    import ray

    if not num_blocks:  # of a rank, where there are more ranks than windows
        return

    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, Paced]

    def decode_window(item: dict[str, Any]) -> dict[str, Any]:
        part = windows.decode(*divmod(int(item["position"]), len(windows)))
        return {"images": part.images, "labels": part.labels, "rows": part.rows}

    decoders = max(1, min(MAX_DECODERS, num_cpus() // (2 * world_size)))
    # Items, because Ray reads a range, and looks into arrays, with tasks that ask for a CPU.
    items = [{"position": position} for position in positions]
    with ray.data.DataContext.current(context):
        blocks = ray.data.from_items(items, override_num_blocks=num_blocks)
        # The tasks ask for no CPU: where training holds them all, they would wait for ever.
        decoded = blocks.map(decode_window, num_cpus=0, compute=ray.data.TaskPoolStrategy(decoders))
    for row in decoded.iter_rows():
        yield Images(np.asarray(row["images"]), np.asarray(row["labels"]), np.asarray(row["rows"]))


STEP_S = 0.03
"""Least time from step to step; Ray notices a decoded window at most that late."""


class Paced:
    """A pace for Ray Data's executor: one of ``DataContext.custom_execution_callback_classes``.

    When decoding is faster than reading and the object store is full, Ray's loop (2.60) finds results that
    it may not take yet and polls without waiting. It is a thread of the training process and holds Python's
    lock: an epoch took three times as long.
    """

    def __init__(self) -> None:
        self._due = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing is to be done."""

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(max(0.0, self._due - time.perf_counter()))
        self._due = time.perf_counter() + STEP_S

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing is to be done."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing is to be done."""
