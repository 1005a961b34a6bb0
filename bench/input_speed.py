"""Decoded and augmented images out of our shards, against torchvision's ImageFolder with a DataLoader.

The same JPEGs, batch size, cores and augmentation (rotation, shift, flip, to float32), which the peer gets in
its fastest form: on PIL images. Speeds are per second of the processor, of all threads and processes
together, so that other work on the machine hardly counts. The goals are claimed for the epoch that decodes;
later epochs of a run find their images in memory.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from clock import ProcessorTime, all_processes, this_process
from photos import write_photos
from row import Row
from temper.batches import Batch, ResidentBatches, warp
from temper.cluster.runtime import start_ray
from temper.cluster.streaming import StreamedBatches
from temper.data import AugmentSpec, ImageView, ShardSet, load_images, write_shards
from temper.host import use_cpu
from temper.training.data import to_device

BATCH_SIZE, CORES = 64, len(os.sched_getaffinity(0))
SPEC, CPU = AugmentSpec(), torch.device("cpu")
SETS = ((32, 3000, ">= 3"), (224, 600, ">= 1.5"))
"""Pixels, images, goal."""
STREAMED_IMAGES = 15_000
"""Over several epochs, about as many as the smallest set of 224 px that is streamed (2 GiB) has in one."""


def rows(folder: Path) -> Iterator[Row]:
    """For each size an epoch that decodes, one that finds its images in memory, and one out of a stream."""
    use_cpu(1)
    _check_augmentation()
    for size, count, goal in SETS:
        photos = write_photos(folder / f"photos{size}", count, size)
        write_shards(photos, folder / f"shards{size}", val_frac=0.01, test_frac=0.01)
        ours, peer = Ours(folder / f"shards{size}", size), Peer(photos)
        _check_images(ours, photos, size)
        name, against = f"input, {size} px", "ImageFolder and DataLoader"
        yield Row(f"{name}, epoch that decodes", against, "images/CPU s", goal, ours.decoding, peer)
        yield Row(f"{name}, later epochs", against, "images/CPU s", goal, ours.resident, peer)
        streamed = Streamed(ours.shards, size)
        yield Row(f"{name}, streamed by Ray Data", against, "images/CPU s", ">= 1", streamed, peer, rounds=3)
        streamed.close()
        peer.close()


class Ours:
    """A split decoded into memory, and the augmented batches that come out of it."""

    def __init__(self, shards: Path, size: int) -> None:
        self.shards, self._size = ShardSet.open(shards), size
        self._resident = self._load()

    def _load(self) -> ResidentBatches:
        images = load_images(self.shards, "train", ImageView(self._size))
        return ResidentBatches(images, batch_size=BATCH_SIZE, seed=0)

    def decoding(self) -> float:
        return _speed(lambda: _augmented(self._load().epoch(0)), this_process)

    def resident(self) -> float:
        return _speed(lambda: _augmented(self._resident.epoch(1)), this_process)


class Streamed:
    """Epochs that Ray Data decodes beside, with the start of its pipeline and what it has read ahead in vain.

    Ray's own processes count as well.
    """

    def __init__(self, shards: ShardSet, size: int) -> None:
        start_ray()
        self._shards, self._size = shards, size

    def __call__(self) -> float:
        return _speed(lambda: _augmented(self._epochs()), all_processes)

    def _epochs(self) -> Iterator[Batch]:
        batches = StreamedBatches(
            self._shards, image_size=self._size, fit="pad", batch_size=BATCH_SIZE, seed=0
        )
        for epoch in range(STREAMED_IMAGES // len(self._shards.rows("train"))):
            yield from batches.epoch(epoch)
        batches.close()

    def close(self) -> None:
        import ray

        ray.shutdown()


class Peer:
    """ImageFolder and a DataLoader with a process per core, started before the clock."""

    def __init__(self, photos: Path) -> None:
        transform = v2.Compose(
            [
                v2.RandomAffine(
                    SPEC.rotation_degrees,
                    translate=(SPEC.shift_frac, SPEC.shift_frac),
                    interpolation=v2.InterpolationMode.BILINEAR,
                ),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )
        self._loader: Iterable[Any] = DataLoader(
            ImageFolder(str(photos), transform=transform),
            batch_size=BATCH_SIZE,
            shuffle=True,
            num_workers=CORES,
            persistent_workers=True,
        )
        before = psutil.Process().children()
        for _ in self._loader:
            pass
        self._workers = [one for one in psutil.Process().children() if one not in before]

    def _processes(self) -> list[psutil.Process]:
        return [psutil.Process(), *self._workers]

    def __call__(self) -> float:
        return _speed(lambda: iter(self._loader), self._processes)

    def close(self) -> None:
        del self._loader


def _augmented(batches: Iterator[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """As the loop has them."""
    return (to_device(batch, SPEC, CPU, seed) for seed, batch in enumerate(batches))


def _speed(epoch: Callable[[], Iterator[Any]], processes: Callable[[], list[psutil.Process]]) -> float:
    """Images per second of the processor over one epoch."""
    count = 0
    with ProcessorTime(processes) as time:
        for images, labels in epoch():
            assert images.dtype == torch.float32
            count += len(labels)
    return count / time.seconds


def _check_augmentation() -> None:
    """Our rotation and shift are the peer's, but for its rounding to whole grey levels."""
    size, degrees, shift = 64, 13, torch.tensor([5.0, 3.0])
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    image = tvf.to_pil_image(tvf.gaussian_blur(noise, [9, 9])[0])
    bilinear = v2.InterpolationMode.BILINEAR
    theirs = tvf.affine(image, -degrees, shift.tolist(), 1.0, [0.0, 0.0], interpolation=bilinear)
    angle = torch.tensor(math.radians(degrees))
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    # Theirs shifts the turned image, ours turns the shifted one.
    shifts = -(turn @ (2 * shift / size))
    pixels, theirs = (tvf.to_dtype(tvf.to_image(one), torch.float32, scale=True) for one in (image, theirs))
    ours = warp(pixels[None], angle[None], shifts[None], torch.ones(1))[0]
    apart = (ours - theirs)[:, size // 4 : -size // 4, size // 4 : -size // 4]
    if apart.abs().max() > 1.5 / 255:
        raise SystemExit(f"augmentations differ by {apart.abs().max():.4f}")


def _check_images(ours: Ours, photos: Path, size: int) -> None:
    """Our training split is what the peer decodes, without the few images of the other splits."""
    images = load_images(ours.shards, "train", ImageView(size))
    theirs = {(label, np.asarray(photo).tobytes()) for photo, label in ImageFolder(str(photos))}
    mine = {
        (int(label), image.transpose(1, 2, 0).tobytes())
        for image, label in zip(images.images, images.labels, strict=True)
    }
    if not mine <= theirs:
        raise SystemExit(f"{len(mine - theirs)} images of {size} px are decoded otherwise by the peer")
