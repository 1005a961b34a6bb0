"""From any image file to bytes that a shard may hold: plain JPEG or PNG, grey or RGB, upright."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from temper.data.near_duplicates import thumbnail

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


@dataclass(frozen=True)
class Encoded:
    """An image as it goes into a shard."""

    content: bytes
    is_grey: bool
    long_side: int
    pixels: bytes
    """A digest of its pixels as RGB, whatever the format and mode of the file."""
    thumbnail: bytes
    """For ``near_duplicates``."""


def encode(path: Path, size: int | None) -> Encoded:
    """Read an image whole and return it as plain JPEG or PNG.

    A plain file is kept byte for byte. Otherwise EXIF rotation is applied, transparency is laid on
    white, 16-bit grey is divided by 257, the long side is reduced to ``size`` if given (never enlarged),
    and the result is a lossless PNG.

    Raises:
        ValueError: not an image, damaged, larger than Pillow's decompression limit, or of 32-bit pixels
            whose range is unknown.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise ValueError("not a regular file" if path.exists() else "broken link")
    content = path.read_bytes()
    if not content:
        raise ValueError("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # Pillow itself only warns between one and two times its limit.
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return _encode_loaded(image, content, size)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS}") from None
    except UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except Exception as problem:  # Pillow raises many kinds for a damaged image
        raise ValueError(f"cannot be decoded ({str(problem) or type(problem).__name__})") from None


def _encode_loaded(image: Image.Image, content: bytes, size: int | None) -> Encoded:
    is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    is_small = size is None or max(image.size) <= size
    is_plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")
    if is_plain and is_upright and is_small and "transparency" not in image.info:
        return Encoded(content, image.mode == "L", max(image.size), _digest(image), thumbnail(image))
    image = _to_grey_or_rgb(ImageOps.exif_transpose(image))
    if size is not None and max(image.size) > size:
        image.thumbnail((size, size), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Encoded(buffer.getvalue(), image.mode == "L", max(image.size), _digest(image), thumbnail(image))


def _digest(image: Image.Image) -> bytes:
    pixels = image if image.mode == "RGB" else image.convert("RGB")
    width = image.width.to_bytes(8, "little")
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=width).digest()


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        opaque = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return opaque.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to 8; Pillow's own conversion clips at 255 instead of scaling.

    Every image is scaled alike, however dark: a scale taken from its own pixels would make images of one
    set incomparable.
    """
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels, whose range is unknown; convert to 8 or 16 bit")
    return Image.fromarray(np.round(pixels / 257).astype(np.uint8))
