"""``export.json``: what lies in the folder of an exported model, and how it is used."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from temper.records.depth import Depth
from temper.records.documents import read_document
from temper.records.evaluation import FileRecord
from temper.records.rejection import Calibration
from temper.spec import Spec


class Preprocessing(Spec):
    """From an image file to what the model takes: (B,3,S,S) float32 in [0,1]; it normalizes by itself."""

    image_size: int = Field(ge=8, le=1024)
    """S, in pixels."""
    fit: Literal["pad", "stretch", "crop"]
    """How an image becomes a square, by bilinear resampling: between black bars, stretched, or its middle."""
    long_side: int | None
    """A longer side is first reduced to this, as in the training images; ``None``: unknown."""
    depth: Depth | None = None
    """How values of more than 8 bits become 8 bits; ``None``: 0..65535 become 0..255."""
    layout: Literal["NCHW"] = "NCHW"
    channels: Literal["RGB"] = "RGB"
    pixel_range: tuple[float, float] = (0.0, 1.0)


class ExportRecord(Spec):
    """An exported model."""

    schema_version: Literal[1] = 1
    name: str
    created: str
    """UTC, ISO 8601."""
    classes: list[str]
    """Of the logits (B,C), in their order."""
    input_name: Literal["images"] = "images"
    output_name: Literal["logits"] = "logits"
    preprocessing: Preprocessing
    model: dict[str, Any]
    """``model`` of the recipe: the backbone and its adapter, whose weights ``model.safetensors`` holds."""
    calibration: Calibration | None
    recipe_hash: str
    data_fingerprint: str
    """Of the training images."""
    files: dict[str, FileRecord]
    largest_change: dict[str, float]
    """File -> the largest difference of any logit from the run's, on ``num_compared`` images."""
    num_compared: int
    packages: dict[str, str]


def read_export(path: Path) -> ExportRecord:
    """Read ``export.json``.

    Raises:
        RecordError: missing, damaged, or of another version.
    """
    return read_document(ExportRecord, path, "no such file; `temper export RUN --out DIR` creates it")
