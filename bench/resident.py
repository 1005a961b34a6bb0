"""An epoch of batches out of a resident split, against indexing an array in memory by a permutation."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from clock import cpu_seconds
from row import Row
from temper.batches import ResidentBatches
from temper.data import Images

BATCH_SIZE, SEED = 128, 0
SIZES = ((32, 20_000), (224, 1_000))
"""Pixels, and how many images."""


def rows(_folder: Path) -> Iterator[Row]:
    """One for each size."""
    for image_size, count in SIZES:
        shape = (count, 3, image_size, image_size)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        images = Images(pixels, np.arange(count) % 10, np.arange(count))
        ours, peer = Ours(images), Peer(images)
        if sorted(ours.epoch()) != sorted(peer.epoch()):
            raise SystemExit("an epoch of both sides does not hold the same images")
        name = f"resident batches, {image_size} px, batch {BATCH_SIZE}"
        yield Row(name, "an array in memory", "images/CPU s", ">= 0.5", ours, peer)


class Peer:
    """numpy's indexing by a permutation: what one would write by hand."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __call__(self) -> float:
        """Images per second of a processor."""
        seconds = cpu_seconds(lambda: deque(self.batches(), maxlen=0))
        return len(self._images.labels) / seconds

    def epoch(self) -> list[tuple[int, int]]:
        """First byte and label of each image."""
        return [
            (int(image[0, 0, 0]), int(label))
            for pixels, labels in self.batches()
            for image, label in zip(pixels, labels, strict=True)
        ]

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch: images (B,3,S,S) uint8, labels (B,)."""
        order = np.random.default_rng(SEED).permutation(len(self._images.labels))
        for start in range(0, len(order), BATCH_SIZE):
            part = order[start : start + BATCH_SIZE]
            yield torch.from_numpy(self._images.images[part]), torch.from_numpy(self._images.labels[part])


class Ours(Peer):
    """``ResidentBatches`` as training reads them."""

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in ResidentBatches(self._images, batch_size=BATCH_SIZE, seed=SEED).epoch(0):
            yield batch.images, batch.labels
