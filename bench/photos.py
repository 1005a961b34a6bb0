"""Class folders of JPEGs with the statistics of photographs: crops of the two that scikit-learn has."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

NUM_CLASSES = 4


def write_photos(folder: Path, count: int, size: int) -> Path:
    """``count`` JPEGs of ``size`` x ``size`` pixels below ``folder``, the same each time."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    generator = np.random.default_rng(0)
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(generator.integers(size, min(photo.size) + 1))
        left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
        crop = photo.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        place = folder / f"class{index % NUM_CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        crop.save(place / f"{index:05d}.jpg", quality=90)
    return folder
