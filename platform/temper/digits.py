"""scikit-learn's handwritten digits as two small tasks: embedded images to try everything on."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(folder: Path) -> tuple[Path, Path]:
    """Write 1,797 8x8 greyscale PNGs as class folders; the folders of the source (0-4) and target (5-9)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    tasks = (folder / "digits_source", folder / "digits_target")
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = tasks[int(label >= 5)] / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # 16 shades of grey, spread over the 8 bits of a PNG.
        Image.fromarray(np.round(pixels * 255 / 16).astype(np.uint8)).save(path)
    return tasks
