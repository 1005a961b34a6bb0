"""Rotation, shift and flip with parameters per image, from uint8 to float: ours against kornia and PIL.

PIL fills what lies outside with black and cannot continue
the border; kornia can, as we do.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from clock import cpu_seconds
from row import Measure, Row, Skipped
from temper.batches import augment, warp
from temper.data import AugmentSpec

BATCH_SIZE, IMAGE_SIZE, NUM_BATCHES = 128, 32, 20
SPEC = AugmentSpec()
NAME = f"augmentation, {IMAGE_SIZE} px, batch {BATCH_SIZE}"


def rows(_folder: Path) -> Iterator[Row | Skipped]:
    """Against PIL, one image at a time, and against kornia on the whole batch."""
    check_same()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8, generator=generator
    )
    ours = _speed(lambda: augment(images, SPEC, generator))
    yield Row(NAME, "PIL", "images/CPU s", ">= 7", ours, _speed(pil_pipeline(images)))
    try:
        kornia = kornia_pipeline()
    except ModuleNotFoundError as error:
        yield Skipped(f"{NAME}, kornia", f"{error.name} is not installed; the extra bench has it")
        return
    yield Row(NAME, "kornia", "images/CPU s", ">= 1", ours, _speed(lambda: kornia(images.float() / 255)))


def _speed(once: Callable[[], Tensor]) -> Measure:
    images = NUM_BATCHES * BATCH_SIZE
    return lambda: images / cpu_seconds(lambda: [once() for _ in range(NUM_BATCHES)])


def pil_pipeline(images: Tensor) -> Callable[[], Tensor]:
    """torchvision's transforms on images of PIL: what an ImageFolder is usually given."""
    shift = (SPEC.shift_frac, SPEC.shift_frac)
    transform = v2.Compose(
        [
            v2.RandomAffine(SPEC.rotation_degrees, shift, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    pictures = [tvf.to_pil_image(image) for image in images]
    return lambda: torch.stack([transform(picture) for picture in pictures])


def kornia_pipeline() -> Any:
    """The same two random transforms for each image of a float batch."""
    from kornia.augmentation import AugmentationSequential, RandomAffine, RandomHorizontalFlip

    shift = (SPEC.shift_frac, SPEC.shift_frac)
    return AugmentationSequential(
        RandomAffine(SPEC.rotation_degrees, shift, padding_mode="border", p=1.0),
        RandomHorizontalFlip(p=0.5),
        data_keys=["input"],
    )


def check_same() -> None:
    """Ours is torchvision's affine with the same parameters, within 1e-5.

    Raises:
        SystemExit: it is not.
    """
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    angles = torch.rand(16, generator=generator) - 0.5
    shifts = (torch.rand(16, 2, generator=generator) - 0.5) * 0.8
    flips = 1 - 2 * torch.randint(0, 2, (16,), generator=generator).float()
    apart = (warp(pixels, angles, shifts, flips) - torchvision_affine(pixels, angles, shifts, flips)).abs()
    if apart.max() > 1e-5:
        raise SystemExit(f"augment and torchvision's affine differ by {apart.max():.1e}")


def torchvision_affine(pixels: Tensor, angles: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """``warp`` by torchvision, image by image; the border is continued beforehand."""
    side = pixels.shape[-1]
    done = []
    for image, angle, shift, flip in zip(pixels, angles, shifts, flips, strict=True):
        source = tvf.pad(image if flip > 0 else tvf.horizontal_flip(image), [side] * 4, padding_mode="edge")
        right, down = (shift * torch.stack([flip, torch.ones(())]) * side / 2).tolist()
        cos, sin = float(angle.cos()), float(angle.sin())
        moved = tvf.affine(
            source,
            angle=-float(angle.rad2deg()),
            translate=[-(cos * right + sin * down), -(cos * down - sin * right)],
            scale=1.0,
            shear=[0.0, 0.0],
            interpolation=tvf.InterpolationMode.BILINEAR,
        )
        done.append(tvf.center_crop(moved, [side, side]))
    return torch.stack(done)
