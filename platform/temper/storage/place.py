"""A path that a user gives, as a field of a spec."""

from pathlib import Path
from typing import Annotated

from pydantic import PlainSerializer

from temper.addresses import address_of, named

Place = Annotated[Path, PlainSerializer(named, return_type=str, when_used="json")]
"""A path here or in S3; it is written as it was given."""


def from_run(place: Path, folder: Path) -> Path:
    """Where a path in the recipe of the run in ``folder`` leads, from whichever working directory.

    A relative one was given beside the run: it is looked for from the folders around it, the nearest first.
    Where none holds it, it is that of the working directory.
    """
    if place.is_absolute() or address_of(place) is not None or address_of(folder) is not None:
        return place
    found = (base / place for base in folder.resolve().parents if (base / place).exists())
    return next(found, place)
