"""``chunks.json``: which model answered for each chunk of an evaluation."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from temper.records.documents import read_document
from temper.spec import Spec


class ModelSource(Spec):
    """What tells a model from another without asking it."""

    weights: str
    """SHA-256 over its parameters, buffers and structure."""
    code: str = ""
    """SHA-256 over the files that its function is read from; empty where it is temper's own, or an object."""


class ChunkSource(ModelSource):
    """The model that a chunk's outcomes are of, as seen by the process that attacked it."""

    num_images: int = Field(ge=1)

    @property
    def model(self) -> ModelSource:
        return ModelSource(weights=self.weights, code=self.code)


class SourcesRecord(Spec):
    """Of all chunks, in the order of the outcomes."""

    schema_version: Literal[1] = 1
    chunks: list[ChunkSource] = Field(min_length=1)


def read_sources(path: Path) -> SourcesRecord:
    """Read ``chunks.json``.

    Raises:
        RecordError: missing, damaged, or something else.
    """
    return read_document(SourcesRecord, path, "no such file")
