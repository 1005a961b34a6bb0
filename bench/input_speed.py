"""Images per second out of our shards against torchvision's ImageFolder with a DataLoader."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from temper.data import ResidentBatches, ShardSet, load_images, write_shards

NUM_IMAGES, PHOTO_PX, SIZE_PX, BATCH_SIZE = 1200, 96, 64, 50


def input_speed(folder: Path) -> Iterator[tuple[str, str, str, Any, Any]]:
    """(name, unit, goal, ours, peer): an epoch with decoding, and one of those that follow."""
    photos = _photos(folder / "photos")
    write_shards(photos, folder / "shards", val_frac=0.01, test_frac=0.01)
    ours, peer = Ours(folder / "shards"), Peer(photos)
    yield "input, first epoch", "images/s", ">= 0.91", ours.first_epoch, peer
    yield "input, later epochs", "images/s", "> 10", ours.later_epoch, peer


def _photos(folder: Path) -> Path:
    """Class folders of smooth JPEGs, which compress as photographs do."""
    generator = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        place = folder / f"class{index % 4}"
        place.mkdir(parents=True, exist_ok=True)
        photo = Image.fromarray(coarse).resize((PHOTO_PX, PHOTO_PX), Image.Resampling.BICUBIC)
        photo.save(place / f"{index}.jpg", quality=92)
    return folder


class Ours:
    """Decoding a split into memory, and the batches that come out of it."""

    def __init__(self, shards: Path) -> None:
        self._shards = ShardSet.open(shards)
        self._resident = self._load()

    def _load(self) -> ResidentBatches:
        images = load_images(self._shards, "train", SIZE_PX, "pad")
        return ResidentBatches(images, batch_size=BATCH_SIZE, seed=0)

    def first_epoch(self) -> float:
        """Images per second with reading and decoding."""
        return _speed(lambda: self._load().epoch(0))

    def later_epoch(self) -> float:
        """Images per second once they are in memory."""
        return _speed(lambda: self._resident.epoch(1))


class Peer:
    """ImageFolder and a DataLoader with a process per core, started before the clock."""

    def __init__(self, photos: Path) -> None:
        transform = v2.Compose([v2.PILToTensor(), v2.Resize((SIZE_PX, SIZE_PX), antialias=True)])
        self._loader = DataLoader(
            ImageFolder(str(photos), transform=transform),
            batch_size=BATCH_SIZE,
            shuffle=True,
            num_workers=os.cpu_count() or 1,
            persistent_workers=True,
        )

    def __call__(self) -> float:
        return _speed(lambda: iter(self._loader))


def _speed(epoch: Any) -> float:
    started = time.perf_counter()
    count = sum(len(batch[1] if isinstance(batch, list) else batch.labels) for batch in epoch())
    return float(count) / (time.perf_counter() - started)
