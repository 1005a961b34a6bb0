"""Reading a JSON file as the record that it should be."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from temper.errors import RecordError
from temper.safe_load import MAX_JSON_BYTES, read_json
from temper.spec import Spec, first_problem

Record = TypeVar("Record", bound=Spec)


def read_document(kind: type[Record], path: Path, missing: str, *, max_bytes: int = MAX_JSON_BYTES) -> Record:
    """Read ``path`` as a ``kind``; ``missing`` is said after the path where there is no such file.

    Raises:
        RecordError: missing, damaged, or not such a record.
    """
    try:
        return kind.model_validate(read_json(path, max_bytes))
    except FileNotFoundError:
        raise RecordError(f"{path}: {missing}") from None
    except ValidationError as problem:
        raise RecordError(f"{path}: {first_problem(problem)}") from None
    except (OSError, ValueError) as problem:
        raise RecordError(f"{path}: not readable as JSON ({problem})") from None
