"""Image files that Pillow cannot write."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXPLICIT = "1.2.840.10008.1.2.1"


def png(pixels: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG of pixels (H,W,C), which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    pixels: np.ndarray, photometric: int, order: str = "<", compression: int = 1, extra: int = -1
) -> bytes:
    """A TIFF of one strip, pixels (H,W,C) of 8 or 16 bits; compression 8 is zlib's."""
    height, width, bands = pixels.shape
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    content = zlib.compress(content) if compression == 8 else content
    bits = 8 * pixels.dtype.itemsize
    tags = {256: [width], 257: [height], 258: [bits] * bands, 259: [compression], 262: [photometric]}
    tags |= {273: [0], 277: [bands], 278: [height], 279: [len(content)], 284: [1]}
    tags |= {338: [extra]} if extra >= 0 else {}
    wide = {256, 257, 273, 278, 279}
    end = 8 + 2 + 12 * len(tags) + 4
    outside = struct.pack(f"{order}{bands}H", *tags[258]) if bands > 2 else b""
    tags[273] = [end + len(outside)]
    entries = b""
    for tag, entry in sorted(tags.items()):
        entries += struct.pack(f"{order}HHI", tag, 4 if tag in wide else 3, len(entry))
        inside = struct.pack(f"{order}{len(entry)}{'I' if tag in wide else 'H'}", *entry)
        entries += struct.pack(f"{order}I", end) if len(inside) > 4 else inside.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + outside + content


def dicom(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """A file of ``pixels`` (H,W), (H,W,3) or (N,H,W), with the given elements."""
    pydicom = pytest.importorskip("pydicom", reason="needs temper[medical]")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = EXPLICIT
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    data = pydicom.Dataset()
    data.file_meta = meta
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3
    height, width = pixels.shape[:2] if is_colour or pixels.ndim == 2 else pixels.shape[1:]
    data.Rows, data.Columns = height, width
    data.SamplesPerPixel = 3 if is_colour else 1
    if is_colour:
        data.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, min(bits, 12), min(bits, 12) - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    data.PatientID, data.StudyInstanceUID, data.Modality = "p7", "1.2.840.1", "CT"
    for name, value in elements.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    data["PixelData"].VR = "OW" if bits > 8 else "OB"
    data.save_as(path, enforce_file_format=True)
    return path
