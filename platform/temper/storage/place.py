"""A path that a user gives, as a field of a spec."""

from pathlib import Path
from typing import Annotated

from pydantic import PlainSerializer

from temper.addresses import named

Place = Annotated[Path, PlainSerializer(named, return_type=str, when_used="json")]
"""A path here or in S3; it is written as it was given."""
