"""From any image file to bytes that a shard may hold: plain JPEG or PNG, grey or RGB, upright."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


@dataclass(frozen=True)
class Encoded:
    """An image as it goes into a shard."""

    content: bytes
    is_grey: bool
    long_side: int


def encode(path: Path, size: int | None) -> Encoded:
    """Read an image whole and return it as plain JPEG or PNG.

    A plain file is kept byte for byte. Otherwise EXIF rotation is applied, transparency is laid on
    white, 16-bit grey is scaled to 8, the long side is reduced to ``size`` if given (never enlarged),
    and the result is a lossless PNG.

    Raises:
        ValueError: not an image, damaged, or larger than Pillow's decompression limit.
    """
    content = path.read_bytes()
    if not content:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.load()
                return _encode_loaded(image, content, size)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS}") from None
    except UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except (OSError, SyntaxError, ValueError) as problem:
        raise ValueError(f"damaged image ({problem})") from None


def _encode_loaded(image: Image.Image, content: bytes, size: int | None) -> Encoded:
    is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    is_small = size is None or max(image.size) <= size
    is_plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")
    if is_plain and is_upright and is_small and "transparency" not in image.info:
        return Encoded(content, image.mode == "L", max(image.size))
    image = _to_grey_or_rgb(ImageOps.exif_transpose(image))
    if size is not None and max(image.size) > size:
        image.thumbnail((size, size), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Encoded(buffer.getvalue(), image.mode == "L", max(image.size))


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit medical images: Pillow's own conversion to L clips at 255 instead of scaling.
        high = float(np.asarray(image).max())
        scale = 257.0 if high > 255 else 1.0
        return image.convert("F").point(lambda value: value / scale).convert("L")
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
