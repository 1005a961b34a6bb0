"""Checking a record against what it rests on, without the model: no torch, no ray.

Add a check: a function of ``Evidence`` that returns ``Check``, and its call in ``check_record``.
"""

from temper.verification.check import check_record, unknown_of, verify_shallow
from temper.verification.evidence import Evidence, read_evidence, record_of
from temper.verification.recipe import is_run
from temper.verification.record import Check, VerificationRecord, check_of, differences

__all__ = [
    "Check",
    "Evidence",
    "VerificationRecord",
    "check_of",
    "check_record",
    "differences",
    "is_run",
    "read_evidence",
    "record_of",
    "unknown_of",
    "verify_shallow",
]
