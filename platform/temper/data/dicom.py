"""DICOM files, with pydicom (the extra ``temper[medical]``)."""

import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from temper.data.deep import Deep
from temper.data.opening import UnreadableError, check_pixels
from temper.records import Depth

if TYPE_CHECKING:
    from pydicom import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")


class DicomImage(NamedTuple):
    """The first picture of a DICOM file."""

    deep: Deep
    patient: str
    study: str
    note: str | None
    """What is read of it, where it is not all."""


def is_dicom(content: bytes) -> bool:
    return content[128:132] == b"DICM"


def patient_of(path: Path) -> str:
    """Whom a DICOM file shows; empty for another file, or where it is not known. No pixels are read."""
    try:
        with path.open("rb") as file:
            if not is_dicom(file.read(132)):
                return ""
        from pydicom import dcmread

        return str(dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID", ""))
    except Exception:  # reading the image itself will say why
        return ""


def read_dicom(content: bytes) -> DicomImage:
    """The first picture: rescaled, with the file's own window, MONOCHROME1 inverted.

    Raises:
        UnreadableError: pydicom or a decoder is missing, or there are no pixels that are understood.
        Exception: whatever pydicom raises for a damaged file.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise UnreadableError(
            "DICOM, which needs pydicom; pip install 'temper[medical]' installs it"
        ) from None
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # it would warn of every odd element
    dataset = dcmread(io.BytesIO(content))
    if "PixelData" not in dataset:
        raise UnreadableError(f"DICOM without pixels (modality {dataset.get('Modality', 'unknown')})")
    check_pixels(int(dataset.Columns), int(dataset.Rows))
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR" or "ModalityLUTSequence" in dataset:
        raise UnreadableError("DICOM with a lookup table; only rescale slope and intercept are supported")
    try:
        pixels: np.ndarray = pixel_array(dataset, index=0)
    except RuntimeError as problem:
        syntax = dataset.file_meta.TransferSyntaxUID.name
        reason = str(problem).splitlines()[0]
        raise UnreadableError(
            f"DICOM of the transfer syntax {syntax}, which cannot be decoded ({reason})"
        ) from None
    num_frames = int(dataset.get("NumberOfFrames", 1) or 1)
    return DicomImage(
        _grey(dataset, pixels) if photometric in GREY else _colour(dataset, pixels),
        str(dataset.get("PatientID", "")),
        str(dataset.get("StudyInstanceUID", "")),
        f"the first of {num_frames} frames" if num_frames > 1 else None,
    )


def _grey(dataset: "Dataset", pixels: np.ndarray) -> Deep:
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    window = _window(dataset)
    return Deep(
        pixels.astype(np.float64) * slope + intercept,
        is_inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        own=Depth(window=window or _range(dataset, slope, intercept)),
        has_window=window is not None,
    )


def _window(dataset: "Dataset") -> tuple[float, float] | None:
    """The values that the file's first window makes black and white: DICOM PS3.3, C.11.2.1.2."""
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if center is None or width is None:
        return None
    if dataset.get("VOILUTFunction", "LINEAR") == "LINEAR":
        center, width = center - 0.5, width - 1
    return (center - width / 2, center + width / 2) if width > 0 else (center - 0.5, center + 0.5)


def _first(value: Any) -> float | None:
    """Of one or several values; ``None`` where there is none."""
    if value is None or value == "":
        return None
    try:
        return float(value)
    except TypeError:
        return float(value[0]) if len(value) else None


def _range(dataset: "Dataset", slope: float, intercept: float) -> tuple[float, float]:
    """All that may be stored."""
    bits = int(dataset.BitsStored)
    lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    ends = sorted(slope * value + intercept for value in (lowest, lowest + 2**bits - 1))
    return ends[0], ends[1]


def _colour(dataset: "Dataset", pixels: np.ndarray) -> Deep:
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UnreadableError(f"DICOM in {dataset.PhotometricInterpretation}, which is not supported")
    return Deep(pixels, "RGB", own=Depth(bits=max(8, int(dataset.BitsStored))))
