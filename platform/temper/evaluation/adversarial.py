"""Adversarial examples that an evaluation keeps, and the file that they are kept in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from temper.records import SavedImages, write_saved_images
from temper.spec import Threat


@dataclass(frozen=True)
class Adversarial:
    """Adversarial examples that were kept: (K,3,H,W) float32 in [0,1] with the numbers of their images."""

    threat: Threat
    rows: np.ndarray
    labels: np.ndarray
    prediction: np.ndarray
    clean: Tensor
    """(K,3,H,W) uint8."""
    images: Tensor


def write_adversarial(path: Path, adversarial: Adversarial) -> None:
    """Write ``adversarial.safetensors`` where none is yet. The clean images stay in the shards.

    Raises:
        RecordError: ``path`` exists.
    """
    saved = SavedImages(
        threat=adversarial.threat,
        images=adversarial.images.numpy(),
        rows=adversarial.rows,
        labels=adversarial.labels,
        predictions=adversarial.prediction,
    )
    write_saved_images(path, saved)
