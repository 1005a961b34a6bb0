"""Settings as frozen pydantic models: parsing, dotted overrides, and errors that name the place."""

from temper.spec.base import Ratio, Spec, format_ratio, parse_ratio
from temper.spec.documents import (
    apply_overrides,
    content_hash,
    dump_yaml,
    parse_assignments,
    read_yaml,
    refuse_secrets,
)
from temper.spec.problems import first_problem, validate
from temper.spec.threats import BallThreat, Channels, Geometry, Norm, Threat, TrainedNorm, check_eps

__all__ = [
    "BallThreat",
    "Channels",
    "Geometry",
    "Norm",
    "Ratio",
    "Spec",
    "Threat",
    "TrainedNorm",
    "apply_overrides",
    "check_eps",
    "content_hash",
    "dump_yaml",
    "first_problem",
    "format_ratio",
    "parse_assignments",
    "parse_ratio",
    "read_yaml",
    "refuse_secrets",
    "validate",
]
