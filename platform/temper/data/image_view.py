"""How images in shards become what a model is given: square uint8 arrays of one size."""

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from temper.data.jpeg import decode_jpeg
from temper.data.opening import FORMATS

Fit = Literal["pad", "stretch", "crop"]


@dataclass(frozen=True)
class ImageView:
    """Square images of one size: uint8 (3,S,S), grey repeated in all three channels.

    ``pad`` keeps the whole image between black bars, ``stretch`` ignores its aspect ratio, ``crop`` takes its
    middle.
    """

    image_size: int
    """S, in pixels."""
    fit: Fit = "pad"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return 3, self.image_size, self.image_size

    @property
    def num_bytes(self) -> int:
        """Memory of one image."""
        return math.prod(self.shape)

    def empty(self, count: int) -> np.ndarray:
        """Room for ``count`` images: uint8 (N,3,S,S)."""
        return np.empty((count, *self.shape), np.uint8)

    def decode(self, content: bytes, long_side: tuple[int, int] | None = None) -> np.ndarray:
        """An encoded image as uint8 (3,S,S).

        ``long_side``: the smallest and the largest that it may have, in pixels; it is known before anything
        is decoded.

        Raises:
            ValueError: another size, or more pixels than Pillow's limit. Pillow raises many other kinds.
        """

        def check_size(width: int, height: int) -> None:
            _check_size(width, height, long_side)

        decoded = decode_jpeg(content, check_size)
        if decoded is None:
            # Only formats that shards may hold: Pillow starts a program to read some others.
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                check_size(opened.width, opened.height)
                decoded = np.asarray(self._square(opened))
        elif decoded.shape[:2] != self.shape[1:]:
            decoded = np.asarray(self._square(Image.fromarray(decoded)))
        if decoded.ndim == 2:
            return np.broadcast_to(decoded, (3, *decoded.shape))
        return decoded.transpose(2, 0, 1)

    def _square(self, opened: Image.Image) -> Image.Image:
        """Grey or RGB, of the wanted size; the image itself where it is that already."""
        image = opened if opened.mode in ("L", "RGB") else opened.convert("RGB")
        square = (self.image_size, self.image_size)
        if image.size == square:
            return image
        match self.fit:
            case "pad":
                return ImageOps.pad(image, square, Image.Resampling.BILINEAR)
            case "crop":
                return ImageOps.fit(image, square, Image.Resampling.BILINEAR)
            case "stretch":
                return image.resize(square, Image.Resampling.BILINEAR)


def _check_size(width: int, height: int, long_side: tuple[int, int] | None) -> None:
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS}")
    if long_side is not None and not long_side[0] <= max(width, height) <= long_side[1]:
        raise ValueError(
            f"{width} x {height} pixels, the manifest says a long side of {long_side[0]}..{long_side[1]}"
        )
