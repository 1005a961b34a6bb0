"""Opening image files: the formats that are read, and the names of those that are not."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile, UnidentifiedImageError

from temper.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""Of images in shards."""
READ = (*FORMATS, "AVIF")
"""Of files, without an extra."""
NAMES = (
    "JPEG, PNG, BMP, TIFF, WebP, GIF, PPM, AVIF, and with extras HEIC (temper[heic]) and DICOM "
    "(temper[medical])"
)
SIGNATURES = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip",
    b"Rar!": "a rar archive",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL": "JPEG XL",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "NumPy",
    b"\x00\x00\x01\x00": "an icon",
    b"SIMPLE  =": "FITS",
    b"II*\x00": "TIFF of bands that are not grey, RGB, RGBA or CMYK",
    b"MM\x00*": "TIFF of bands that are not grey, RGB, RGBA or CMYK",
    b"II+\x00": "BigTIFF of bands that are not grey, RGB, RGBA or CMYK",
    b"\xff\xd8\xff": "a damaged JPEG",
    b"\x89PNG": "a damaged PNG",
    b"GIF8": "a damaged GIF",
}
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class UnreadableError(ValueError):
    """An image that is not read; the message says why."""


def kind_of(content: bytes) -> str:
    """The format of a file that is no image of ours, by its first bytes; empty where it is not known."""
    if content[4:8] == b"ftyp":
        return "HEIC" if content[8:12] in HEIC_BRANDS else "AVIF" if content[8:12] == b"avif" else "a video"
    found = (name for start, name in SIGNATURES.items() if content.startswith(start))
    head = content[:256].lstrip().lower()
    if head.startswith((b"<svg", b"<?xml", b"<!doctype", b"<html")):
        return "SVG" if b"<svg" in content[:4096].lower() else "HTML or XML"
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, whose image was not fetched"
    return next(found, "")


def open_image(content: bytes) -> ImageFile.ImageFile:
    """An image, not yet decoded.

    Raises:
        UnreadableError: another format, or one that needs an extra.
        DecompressionBombError: more pixels than twice Pillow's limit.
    """
    formats: tuple[str, ...] = READ
    if content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS:
        _register_heic()
        formats = ("HEIF",)
    try:
        return Image.open(io.BytesIO(content), formats=formats)
    except UnidentifiedImageError:
        kind = kind_of(content)
        found = f"found {kind}; " if kind else ""
        raise UnreadableError(f"not an image of a known format: {found}supported are {NAMES}") from None


def _register_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UnreadableError(
            "HEIC, which needs pillow-heif; pip install 'temper[heic]' installs it"
        ) from None
    register_heif_opener()


def check_pixels(width: int, height: int) -> None:
    """Refuse an image of more pixels than Pillow's limit, where it would only warn.

    Raises:
        UnreadableError: it has more.
    """
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise UnreadableError(too_many_pixels())


def too_many_pixels() -> str:
    return f"more pixels than the limit of {Image.MAX_IMAGE_PIXELS} (--max-pixels N raises it)"


def check_limit(limit: int | None, *, is_reduced: bool) -> None:
    """Check a limit of the pixels of an image; one above Pillow's is for images that are stored smaller.

    Raises:
        DataError: it is too low or too high.
    """
    usual = Image.MAX_IMAGE_PIXELS
    if limit is not None and limit < 1:
        raise DataError(f"max_pixels: expected at least 1, got {limit}")
    if limit is not None and usual and limit > usual and not is_reduced:
        raise DataError(f"max_pixels: images above {usual} pixels are stored smaller only; add --size")


@contextmanager
def pixel_limit(limit: int | None) -> Iterator[None]:
    """Pillow's limit of the pixels of an image; ``None`` leaves it."""
    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = limit or before
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def partly_read(image: ImageFile.ImageFile) -> str | None:
    """What of an image is read, where it is not all of it."""
    parts = []
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        what = {"TIFF": "pages", "MPO": "pictures", "HEIF": "pictures"}.get(image.format or "", "frames")
        parts.append(f"the first of {num_frames} {what}")
    if image.format == "TIFF":
        num_bands, read = getattr(image, "tag_v2", {}).get(277, 1), len(image.getbands())  # SamplesPerPixel
        parts += [f"{read} of {num_bands} bands"] if num_bands > read else []
    return ", ".join(parts) or None
