"""Whether one model answered for all chunks of an evaluation, as far as that can be known without it."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from temper.errors import RecordError
from temper.records import ChunkSource, EvaluationRecord, ModelSource, read_sources
from temper.spec import content_hash
from temper.storage import beside
from temper.verification.recipe import is_run
from temper.verification.record import Check, check_of, differences

UNKNOWN = (
    "that one model answered for all images: this record, by an earlier temper or without files, does not "
    "say which model each chunk is of"
)


def check_sources(path: Path, record: EvaluationRecord) -> Check:
    """Each chunk is of the same weights and code, those of the record, and all images are in one."""
    try:
        chunks = read_sources(beside(path.parent, record.files["chunks"].path)).chunks
    except RecordError as problem:
        return Check(name="chunks", passed=False, detail=str(problem))
    return check_of("chunks", _problems(record, chunks), f"{len(chunks)} chunks, all of one model")


def _problems(record: EvaluationRecord, chunks: list[ChunkSource]) -> Iterator[str]:
    runs = [(source, len(list(same))) for source, same in groupby(chunks, lambda one: one.model)]
    if len({source.model_dump_json() for source, _ in runs}) > 1:
        said = ", then ".join(f"{count} of {_named(source)}" for source, count in runs)
        yield f"more than one model answered: {said}"
    if not is_run(record):
        strange = [one for one in chunks if content_hash({"model": one.weights}) != record.recipe_hash]
        if strange:
            yield f"{len(strange)} chunks are of other weights than recipe_hash {record.recipe_hash}"
    yield from differences("data.num_images", record.data.num_images, sum(one.num_images for one in chunks))
    asked = record.recipe.get("evaluation")
    size = asked.get("chunk_size") if isinstance(asked, dict) else None
    if size is not None and {one.num_images for one in chunks[:-1]} - {size}:
        yield f"chunks of other sizes than evaluation.chunk_size {size}"


def _named(source: ModelSource) -> str:
    return f"weights {source.weights[:12]}" + (f" by code {source.code[:12]}" if source.code else "")
