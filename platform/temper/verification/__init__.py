"""Checking a record against what it rests on, without the model: no torch, no ray.

Add a check: a function of ``Evidence`` that returns ``Check``, and its call in ``check_record``.
"""

from temper.verification.check import check_record, unknown_of, verify_shallow
from temper.verification.evidence import Evidence, read_evidence, record_of
from temper.verification.further_tests import outcomes_of_test
from temper.verification.recipe import is_run
from temper.verification.record import Check, VerificationRecord, check_of, differences
from temper.verification.verdict import leave_verdict, verdict_beside

__all__ = [
    "Check",
    "Evidence",
    "VerificationRecord",
    "check_of",
    "check_record",
    "differences",
    "is_run",
    "leave_verdict",
    "outcomes_of_test",
    "read_evidence",
    "record_of",
    "unknown_of",
    "verdict_beside",
    "verify_shallow",
]
