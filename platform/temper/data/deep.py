"""Pixels of more than 8 bits, and how they become 8 bits."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile

from temper.data.opening import UnreadableError, open_image
from temper.records import Depth

FULL = Depth(bits=16)
"""How they are scaled where a set says nothing."""
FLIPPED = {"B": "L", "L": "B", "N": "B"}
"""Byte order of a raw mode: the order in which Pillow keeps the other of two bytes."""
BITS, PHOTOMETRIC, PLANAR = 258, 262, 284
MIN_IS_WHITE = 0

DepthOf = Callable[["Deep"], Depth]
"""How an image is scaled; a set's depth is found when it is first asked for."""


@dataclass(frozen=True)
class Deep:
    """An image of more than 8 bits."""

    values: np.ndarray
    """As stored: (H,W), or (H,W,C) for ``mode``."""
    mode: str = "L"
    """What it is with 8 bits: L, RGB or CMYK."""
    alpha: np.ndarray | None = None
    """uint8 (H,W)."""
    is_inverted: bool = False
    """The smallest value is white."""
    own: Depth | None = None
    """How the file itself says that it is shown."""
    has_window: bool | None = None
    """Whether ``own`` is a window that a DICOM file names; ``False``: all that may be stored."""

    def depth(self, given: Depth | None) -> Depth | None:
        """How it is scaled where its set is by ``given``: a window is for every file."""
        if self.own is None or (given is not None and given.window and self.own.window):
            return given
        return self.own

    @property
    def largest(self) -> int | None:
        """``None`` where the values do not say what is white."""
        if self.values.dtype.kind == "f" or self.values.min() < 0 or self.values.max() > 65535:
            return None
        return int(self.values.max())

    @property
    def wrapped(self) -> str | None:
        """What is said where some values lie near 0, others near 65535, and none in the half between.

        A single largest value marks pixels without a measurement; several are negative numbers.
        """
        values = self.values
        if values.dtype != np.uint16 or self.largest is None or self.largest < 0xC000:
            return None
        high = values[values >= 0xC000]
        if not (values < 0x4000).any() or len(high) + (values < 0x4000).sum() < values.size:
            return None
        if high.min() == high.max():
            return None
        return (
            f"values 0..{values[values < 0x4000].max()} and {high.min()}..{high.max()}, as negative numbers "
            "become that lose their sign: save them plus 32768"
        )

    def clipped(self, depth: Depth) -> str | None:
        """What is said where values are beyond the bits that were given; a window is meant to cut."""
        largest = self.largest
        if depth.bits is None or largest is None or largest < 2**depth.bits:
            return None
        return f"values above {2**depth.bits - 1}, up to {largest}, are white"

    def to_8_bit(self, depth: Depth) -> Image.Image:
        """Scaled as ``depth`` says: L, LA, RGB, RGBA or CMYK.

        Every image of a set is scaled alike, however dark: a scale taken from its own pixels would make them
        incomparable.

        Raises:
            UnreadableError: values that are no numbers, or of an unknown range.
        """
        if depth.window is None and self.largest is None:
            what = "negative" if self.values.dtype.kind == "i" and self.values.min() < 0 else "32-bit"
            raise UnreadableError(
                f"{what} pixels, whose range is unknown; convert to 8 or 16 bit, or make shards with "
                "--window LOW HIGH"
            )
        if not np.isfinite(self.values).all():
            raise UnreadableError("pixels that are not numbers")
        low, high = depth.limits
        scaled = np.round((np.clip(self.values, low, high) - low) / ((high - low) / 255)).astype(np.uint8)
        image = _from_array(255 - scaled if self.is_inverted else scaled, self.mode)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image


def _from_array(pixels: np.ndarray, mode: str) -> Image.Image:
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())


def read_deep(image: ImageFile.ImageFile, content: bytes) -> Deep | None:
    """``image``, just opened from ``content``, where it has more than 8 bits; loads it.

    Raises:
        UnreadableError: transparency that is not read.
        Exception: whatever Pillow raises for a damaged file.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        clear = image.info.get("transparency")
        alpha = None if clear is None else np.where(values == clear, 0, 255).astype(np.uint8)
        return Deep(values, alpha=alpha, is_inverted=tags.get(PHOTOMETRIC) == MIN_IS_WHITE)
    if tags.get(PLANAR) == 2 and 16 in tags.get(BITS, ()):
        raise UnreadableError("16-bit bands stored one after another; save them interleaved, or with 8 bits")
    raw = _raw_mode(image)
    if image.format == "PPM":
        return _read_ppm(image, content)
    if ";16" not in raw:
        return None
    if raw.startswith("RGBa"):
        raise UnreadableError(
            "16-bit pixels multiplied by their transparency; save them without, or with 8 bits"
        )
    if raw.startswith("LA"):  # its four bytes are high and low of grey and of alpha
        parts = np.asarray(_reopened(content, "RGBA"))
        return Deep(_joined(parts[..., 0], parts[..., 1]), alpha=parts[..., 2])
    # Pillow keeps one byte of two; the other one comes with the other order of bytes.
    low = np.asarray(_reopened(content, raw[:-1] + FLIPPED[raw[-1]]))
    high = np.asarray(image)
    num_colours = 4 if image.mode == "CMYK" else 3
    alpha = high[..., 3] if image.mode == "RGBA" else None
    values = _joined(high, low)[..., :num_colours]
    return Deep(values, "CMYK" if image.mode == "CMYK" else "RGB", alpha)


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    joined: np.ndarray = high.astype(np.uint16) << 8 | low
    return joined


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How Pillow unpacks its first tile; empty where it does not say."""
    arguments = image.tile[0].args if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _read_ppm(image: ImageFile.ImageFile, content: bytes) -> Deep | None:
    """A colour PPM of two bytes a value, as Pillow reads grey ones: scaled by the largest it may have."""
    tile = image.tile[0]
    if tile.codec_name != "ppm" or not isinstance(tile.args, tuple) or tile.args[0] != "RGB":
        return None
    highest = int(tile.args[1])
    if highest < 256:
        return None
    shape = (image.height, image.width, 3)
    values = np.frombuffer(content, ">u2", image.height * image.width * 3, tile.offset).reshape(shape)
    return Deep(np.minimum(np.round(values * (65535 / highest)), 65535).astype(np.uint16), "RGB")


def _reopened(content: bytes, raw: str) -> Image.Image:
    """The same image, unpacked as ``raw``."""
    image = open_image(content)
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile
    ]
    image.load()
    return image
