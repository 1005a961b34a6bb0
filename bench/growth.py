"""What growing costs: a run on more data, and decoding by more raylets that share the same cores.

    python bench/growth.py NUM_RAYLETS SHARDS

starts so many raylets on this machine, decodes the shards with them and prints shards per second of the clock
and of the processor.
"""

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clock import ProcessorTime, all_processes
from photos import write_photos
from row import Row
from temper.data import ImageView, ShardSet, write_shards
from temper.recipe import load_recipe
from train_speed import write_recipe

NUM_IMAGES, SIZE, EPOCHS = 512, 32, 6
TOTAL_CPUS, PASSES = 4, 9
SHARD_IMAGES, NUM_SHARDS, SHARD_PX = 256, 10, 224
STORE_BYTES = 1200 * 2**20
"""Of all raylets together."""


def rows(folder: Path) -> Iterator[Row]:
    """Seconds per image over 2, 4 and 8 times the data; shards per second of 2 and 4 raylets."""
    base = Training(folder, 1)
    for times in (2, 4, 8):
        more = Training(folder, times)
        name = f"epoch over {times} times the data"
        yield Row(name, "once the data", "CPU s/image", "<= 1.05", more, base, rounds=5)
    photos = write_photos(folder / "photos", SHARD_IMAGES * NUM_SHARDS, SHARD_PX)
    shards = folder / "shards"
    write_shards(photos, shards, val_frac=0.01, test_frac=0.01, images_per_shard=SHARD_IMAGES)
    for count in (2, 4):
        name = f"decoding by {count} raylets"
        sides = (lambda count=count: on_raylets(count, shards), lambda: on_raylets(1, shards))
        yield Row(name, "1 raylet, same cores", "shards/s", ">= 0.9", *sides, rounds=3, warm_ups=0)


class Training:
    """Epochs of ``temper train`` in this process over ``times`` as many images."""

    def __init__(self, folder: Path, times: int) -> None:
        count = times * NUM_IMAGES
        photos, shards = write_photos(folder / f"photos{times}", count, SIZE), folder / f"shards{times}"
        write_shards(photos, shards, val_frac=0.02, test_frac=0.02)
        recipe = write_recipe(folder / f"times{times}.yaml", shards, None, EPOCHS)
        self._recipe = load_recipe(recipe, {"workers.num_workers": 0})
        self._images = len(ShardSet.open(shards).rows("train"))
        self._folder, self._count = folder / f"runs{times}", 0

    def __call__(self) -> float:
        """Seconds of the processor for each image, from the second epoch to the last but one."""
        from temper.cluster.launch import launch

        self._count += 1
        ends: list[float] = []
        launch(
            self._recipe,
            self._folder / str(self._count),
            on_epoch=lambda _: ends.append(time.process_time()),
        )
        return (ends[-2] - ends[0]) / (EPOCHS - 2) / self._images


def on_raylets(count: int, shards: Path) -> float:
    """Shards per second, of a cluster in a process of its own."""
    command = [sys.executable, __file__, str(count), str(shards)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    by_clock, by_processor = map(float, done.stdout.splitlines()[-1].split())
    print(f"  {count} raylets: {by_clock:.2f} shards/s, {by_processor:.2f} shards/CPU s of all processes")
    return by_clock


def decode(num_raylets: int, path: Path) -> tuple[float, float]:
    """Shards per second of the clock, and of the processor: the median of a few passes after the first."""
    os.environ |= {"RAY_raylet_start_wait_time_s": "150", "RAY_agent_register_timeout_ms": "150000"}
    import ray
    from ray.cluster_utils import Cluster

    from temper.cluster.runtime import start_ray
    from temper.cluster.streaming import load_images_with_ray

    cluster: Any = Cluster()
    for _ in range(num_raylets):
        port = {} if cluster.head_node else {"dashboard_port": free_port()}
        memory = STORE_BYTES // num_raylets
        cluster.add_node(num_cpus=TOTAL_CPUS // num_raylets, object_store_memory=memory, **port)
    os.environ["RAY_ADDRESS"] = cluster.address
    start_ray()
    shards, spent = ShardSet.open(path), list[tuple[float, float]]()
    for _ in range(1 + PASSES):
        started = time.perf_counter()
        with ProcessorTime(all_processes) as processors:
            load_images_with_ray(shards, "train", ImageView(SHARD_PX))
        spent.append((time.perf_counter() - started, processors.seconds))
    ray.shutdown()
    cluster.shutdown()
    count = len(shards.manifest.shards)
    wall, cpu = (count / statistics.median(column) for column in zip(*spent[1:], strict=True))
    return wall, cpu


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    print(*decode(int(sys.argv[1]), Path(sys.argv[2])))
