"""`temper train` out of a stream of Ray Data, against the same steps out of memory.

Sets that are streamed do not fit into Ray's object store, so the store is made small here: the stream then
waits for the training most of the time, which must cost the training nothing.
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import ray

from photos import write_photos
from row import Row
from temper.cluster.launch import launch
from temper.data import write_shards
from temper.recipe import load_recipe
from train_speed import SIZE, write_recipe

NUM_IMAGES, EPOCHS = 3000, 6
STORE_BYTES = 120 * 2**20
"""Of which a stream may use about a half; an epoch has 9 MB."""


def rows(folder: Path) -> Iterator[Row]:
    """One, by the clock: the loop of Ray Data runs beside the training, on whatever cores there are."""
    shards = folder / "shards"
    write_shards(write_photos(folder / "photos", NUM_IMAGES, SIZE), shards, val_frac=0.02, test_frac=0.02)
    ray.shutdown()
    ray.init(object_store_memory=STORE_BYTES, log_to_driver=False, logging_level="error")
    sides = (Training(folder, shards, is_resident=resident) for resident in (False, True))
    try:
        yield Row("temper train, streamed", "resident batches", "s/epoch", "<= 1.15", *sides, rounds=3)
    finally:
        ray.shutdown()  # the next script has to have a store of the usual size


class Training:
    """Epochs on a worker of Ray Train."""

    def __init__(self, folder: Path, shards: Path, *, is_resident: bool) -> None:
        recipe = write_recipe(folder / f"{is_resident}.yaml", shards, None, EPOCHS)
        self._recipe = load_recipe(recipe, {"data.resident": is_resident})
        self._outs = (folder / f"runs-{is_resident}" / str(number) for number in itertools.count())

    def __call__(self) -> float:
        """Seconds of an epoch, but for the first, in which the stream starts."""
        ends: list[float] = []
        launch(self._recipe, next(self._outs), on_epoch=lambda _: ends.append(time.perf_counter()))
        return (ends[-1] - ends[0]) / (len(ends) - 1)
