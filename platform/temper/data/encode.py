"""From any image file to bytes that a shard may hold: plain JPEG or PNG, grey or RGB, upright."""

import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from temper.data.deep import FULL, DepthOf, read_deep
from temper.data.dicom import is_dicom, read_dicom
from temper.data.near_duplicates import thumbnail
from temper.data.opening import UnreadableError, check_pixels, open_image, partly_read, too_many_pixels

LONGEST = 300
"""Characters of a reason."""
ORIENTATION = ExifTags.Base.Orientation
GLANCE = 256
"""Pixels of an image that are looked at for colour before all of them."""


@dataclass(frozen=True)
class Encoded:
    """An image as it goes into a shard."""

    content: bytes
    sha256: str
    """Of ``content``."""
    is_grey: bool
    """Its channels are equal, whatever the mode of the file."""
    long_side: int
    pixels: bytes
    """A digest of its pixels as RGB, whatever the format and mode of the file."""
    thumbnail: bytes
    """For ``near_duplicates``."""
    note: str | None = None
    """What of the file was read, where it was not all."""
    patient: str = ""
    study: str = ""
    """Whom it shows, where the file says so."""
    traits: dict[str, str] = field(default_factory=dict)
    """Properties of the file that have nothing to do with what it shows."""
    has_window: bool | None = None
    """Whether a DICOM file was scaled by its own window; ``None``: by a rule of the set, or it has none."""
    window: tuple[float, float] | None = None
    """By which it was scaled, its own or the range of its bits."""

    @property
    def colour(self) -> str:
        return "grey" if self.is_grey else "in colour"


def encode(path: Path, size: int | None, depth: DepthOf = lambda deep: deep.own or FULL) -> Encoded:
    """Read an image whole and return it as plain JPEG or PNG.

    A plain file is kept byte for byte. Otherwise EXIF rotation is applied, transparency is laid on
    white, values of more than 8 bits are scaled by ``depth``, the long side is reduced to ``size`` if given
    (never enlarged), and the result is a lossless PNG. Of several pages or frames the first is read.

    Raises:
        ValueError: not an image, damaged, larger than Pillow's decompression limit, or of 32-bit pixels
            whose range is unknown.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise ValueError(_why_no_file(path))
    content = path.read_bytes()
    if not content:
        raise ValueError("empty file")
    try:
        if is_dicom(content):
            return _encode_dicom(content, size, depth)
        with open_image(content) as image:
            check_pixels(image.width, image.height)
            return _encode_image(image, content, size, depth)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(too_many_pixels()) from None
    except UnreadableError as problem:
        raise ValueError(_in_a_line(problem)) from None
    except Exception as problem:  # Pillow and pydicom raise many kinds for a damaged image
        raise ValueError(f"cannot be decoded ({_in_a_line(problem)})") from None


def _encode_dicom(content: bytes, size: int | None, depth: DepthOf) -> Encoded:
    found = read_dicom(content)
    chosen = depth(found.deep)
    image = found.deep.to_8_bit(chosen)
    plain = _encode_loaded(image, content, size, found.note)
    return replace(
        plain,
        patient=found.patient,
        study=found.study,
        has_window=found.deep.has_window if chosen is found.deep.own else None,
        window=chosen.window,
        traits={"format": "DICOM", "colour": plain.colour, "size": _size(image)},
    )


def _encode_image(image: ImageFile.ImageFile, content: bytes, size: int | None, depth: DepthOf) -> Encoded:
    note = partly_read(image)
    deep = read_deep(image, content)
    image.load()
    if deep is None:
        plain = _encode_loaded(image, content, size, note)
    else:
        chosen = depth(deep)
        scaled = deep.to_8_bit(chosen)
        note = ", ".join(filter(None, (note, deep.clipped(chosen), deep.wrapped))) or None
        scaled.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        plain = _encode_loaded(scaled, content, size, note)
    plain.traits.update(
        format=str(image.format),
        depth="of 8 bits" if deep is None else "of more than 8 bits",
        colour=plain.colour,
        transparency="transparent" if _is_transparent(image) else "opaque",
        size=_size(image),
    )
    return plain


def _is_transparent(image: Image.Image) -> bool:
    if "A" in image.getbands():
        return bool(np.asarray(image.getchannel("A")).min() < 255)
    return "transparency" in image.info


def _size(image: Image.Image) -> str:
    return f"of {image.width} x {image.height} pixels"


def _in_a_line(problem: Exception) -> str:
    """Its message, which may quote bytes of the file."""
    shown = "".join(char if char.isprintable() else " " for char in str(problem)[:LONGEST])
    return " ".join(shown.split()) or type(problem).__name__


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return (
            "a link to a folder"
            if path.is_symlink()
            else "not a regular file, but a folder that cannot be read"
        )
    return "not a regular file" if path.exists() else "broken link"


def largest_value(path: Path) -> int | None:
    """The largest value of an image of more than 8 bits; ``None`` for others, and for what cannot be read."""
    try:
        content = path.read_bytes()
        if is_dicom(content):  # has a range of its own
            return None
        with open_image(content) as image:
            check_pixels(image.width, image.height)
            deep = read_deep(image, content)
            return None if deep is None else deep.largest
    except Exception:  # reading the image itself will say why
        return None


def _encode_loaded(image: Image.Image, content: bytes, size: int | None, note: str | None) -> Encoded:
    is_upright = image.getexif().get(ORIENTATION, 1) == 1
    is_small = size is None or max(image.size) <= size
    is_plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")
    if is_plain and is_upright and is_small and "transparency" not in image.info:
        return _encoded(image, content, note)
    image = _to_grey_or_rgb(ImageOps.exif_transpose(image))
    if size is not None and max(image.size) > size:
        image.thumbnail((size, size), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return _encoded(image, buffer.getvalue(), note)


def _encoded(image: Image.Image, content: bytes, note: str | None) -> Encoded:
    pixels = (image if image.mode == "RGB" else image.convert("RGB")).tobytes()
    width = image.width.to_bytes(8, "little")
    digest = hashlib.blake2b(pixels, digest_size=16, salt=width).digest()
    is_grey = image.mode == "L" or _is_grey(pixels)
    sha256 = hashlib.sha256(content).hexdigest()
    return Encoded(content, sha256, is_grey, max(image.size), digest, thumbnail(image), note)


def _is_grey(pixels: bytes) -> bool:
    """Whether the three channels of RGB are equal everywhere; the first pixels tell of most images."""
    return all(part[::3] == part[1::3] == part[2::3] for part in (pixels[: 3 * GLANCE], pixels))


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        opaque = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return opaque.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    converted = image.convert("RGB")
    if image.mode == "LAB":
        del converted.info["icc_profile"]  # Pillow's own, which holds the time: the bytes would never repeat
    return converted
