"""From any image file to bytes that a shard may hold: plain JPEG or PNG, grey or RGB, upright."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from temper.data.deep import FULL, DepthOf, UnreadableError, read_deep

ORIENTATION = ExifTags.Base.Orientation
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")


@dataclass(frozen=True)
class Encoded:
    """An image as it goes into a shard."""

    content: bytes
    is_grey: bool
    long_side: int
    pixels: bytes
    """A digest of its pixels as RGB, whatever the format and mode of the file."""


def encode(path: Path, size: int | None, depth: DepthOf = lambda: FULL) -> Encoded:
    """Read an image whole and return it as plain JPEG or PNG.

    A plain file is kept byte for byte. Otherwise EXIF rotation is applied, transparency is laid on
    white, values of more than 8 bits are scaled by ``depth``, the long side is reduced to ``size`` if given
    (never enlarged), and the result is a lossless PNG.

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
            deep = read_deep(image, content, FORMATS)
            image.load()
            if deep is None:
                return _encode_loaded(image, content, size)
            scaled = deep.to_8_bit(depth())
            scaled.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
            return _encode_loaded(scaled, content, size)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS}") from None
    except UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except UnreadableError:
        raise
    except Exception as problem:  # Pillow raises many kinds for a damaged image
        raise ValueError(f"cannot be decoded ({str(problem) or type(problem).__name__})") from None


def largest_value(path: Path) -> int | None:
    """The largest value of an image of more than 8 bits; ``None`` for others, and for what cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return None
            deep = read_deep(image, content, FORMATS)
            return None if deep is None else deep.largest
    except Exception:  # reading the image itself will say why
        return None


def _encode_loaded(image: Image.Image, content: bytes, size: int | None) -> Encoded:
    is_upright = image.getexif().get(ORIENTATION, 1) == 1
    is_small = size is None or max(image.size) <= size
    is_plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")
    if is_plain and is_upright and is_small and "transparency" not in image.info:
        return Encoded(content, image.mode == "L", max(image.size), _digest(image))
    image = _to_grey_or_rgb(ImageOps.exif_transpose(image))
    if size is not None and max(image.size) > size:
        image.thumbnail((size, size), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Encoded(buffer.getvalue(), image.mode == "L", max(image.size), _digest(image))


def _digest(image: Image.Image) -> bytes:
    pixels = image if image.mode == "RGB" else image.convert("RGB")
    width = image.width.to_bytes(8, "little")
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=width).digest()


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        opaque = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return opaque.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return image.convert("RGB")
