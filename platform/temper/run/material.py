"""The images that rejection is fitted to: validation images, and others unlike them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from temper.data import Images, ImageView, Manifest, ShardSet, find_images, load_images, read_image
from temper.errors import DataError
from temper.evaluation.rejection import RejectionSpec, Unlike
from temper.storage import exists, fetched, named


@dataclass(frozen=True)
class Material:
    """What rejection is fitted to, and what it is measured on beside test images and attacked ones."""

    coverage: float
    val: Images
    unlike: list[Unlike]
    batch_size: int


def material_from(asked: RejectionSpec, shards: ShardSet, view: ImageView, batch_size: int) -> Material:
    """Of a model on ``shards``; read before hours of attacks.

    Raises:
        DataError: images of ``evaluation.rejection.ood`` that cannot be read.
    """
    unlike = [] if asked.ood is None else [_unlike(asked.ood, shards, view)]
    return Material(asked.coverage, load_images(shards, "val", view), unlike, batch_size)


def _unlike(place: Path, shards: ShardSet, view: ImageView) -> Unlike:
    folder = fetched(place)
    if exists(place / "manifest.json"):
        images = load_images(ShardSet.open(place), "test", view).images
    else:
        images = _loose(find_images([folder]), view, shards.manifest)
    return Unlike("out of distribution", folder.name, images)


def _loose(files: Sequence[Path], view: ImageView, manifest: Manifest) -> np.ndarray:
    pixels = []
    for file in files:
        try:
            pixels.append(read_image(file, view, manifest.long_side[1], manifest.depth))
        except (OSError, ValueError) as problem:
            raise DataError(f"evaluation.rejection.ood: {named(file)}: {problem}") from None
    if not pixels:
        raise DataError("evaluation.rejection.ood: no images found; give a folder of images, or shards")
    return np.stack(pixels)
