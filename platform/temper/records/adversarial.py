"""Reading and writing ``adversarial.safetensors``: images that fooled the model, kept for checks, pictures.

Only numpy: a record is checked without torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from temper.errors import RecordError
from temper.records.files import write_once
from temper.safe_load import parse_json
from temper.spec import Threat, first_problem

FORMAT = "1"
NUMBERS = ("rows", "labels", "predictions")


@dataclass(frozen=True)
class SavedImages:
    """K adversarial images with what is claimed of each."""

    threat: Threat
    """Which they obey, seen from their clean images."""
    images: np.ndarray
    """(K,C,H,W) float32 in [0,1]."""
    rows: np.ndarray
    """(K,) int64: the images' numbers in the shards, each once."""
    labels: np.ndarray
    """(K,) int64."""
    predictions: np.ndarray
    """(K,) int64: what the model takes them for; -1 where its answer was not finite."""


def write_saved_images(path: Path, saved: SavedImages) -> None:
    """Write them where nothing is yet.

    Raises:
        RecordError: ``path`` exists.
    """
    arrays = {"images": saved.images.astype(np.float32)}
    arrays |= {name: getattr(saved, name).astype(np.int64) for name in NUMBERS}
    # One entry alone: the file's bytes would depend on the order of several.
    described = json.dumps({"format": FORMAT, "threat": saved.threat.model_dump(mode="json")})
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_once(path, save(contiguous, metadata={"temper": described}))


def read_saved_images(path: Path) -> SavedImages:
    """Read them back.

    Raises:
        RecordError: missing, damaged, or not what ``write_saved_images`` writes.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        with safe_open(path, "np") as file:
            described = parse_json((file.metadata() or {})["temper"])
            arrays = {name: file.get_tensor(name) for name in ("images", *NUMBERS)}
        if described["format"] != FORMAT:
            raise RecordError(f"{path}: format {described['format']!r}, this temper reads {FORMAT!r}")
        threat = Threat.model_validate(described["threat"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ValidationError) as problem:
        raise RecordError(
            f"{path}: not readable as saved adversarial images ({first_problem(problem)})"
        ) from None
    _check(path, arrays)
    return SavedImages(threat, **arrays)


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    images = arrays["images"]
    if images.ndim != 4 or images.dtype != np.float32:
        raise RecordError(f"{path}: images are {images.dtype} {images.shape}, expected float32 (K,C,H,W)")
    for name in NUMBERS:
        if arrays[name].shape != (len(images),) or arrays[name].dtype != np.int64:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise RecordError(f"{path}: {name} are {found}, expected int64 ({len(images)},)")
    if len(np.unique(arrays["rows"])) != len(images):
        raise RecordError(f"{path}: an image occurs twice")
