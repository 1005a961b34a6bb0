"""Typed files: what a run, a sweep and an evaluation leave behind, and how they are written."""

from temper.records.adversarial import SavedImages, read_saved_images, write_saved_images
from temper.records.corruptions import CorruptionRecord
from temper.records.crossval import CrossvalRecord, FoldRun, OverTargets, Spread, TargetSummary, read_crossval
from temper.records.escaping import escape_markdown, spreadsheet_cell
from temper.records.evaluation import (
    SCHEMA_VERSION,
    AttackRecord,
    Cost,
    CurvePoint,
    DataRecord,
    EvaluationRecord,
    FileRecord,
    GateRecord,
    Interval,
    Metrics,
    MetricsRecord,
    MinimumNormRecord,
    ModelRecord,
    Promises,
    Proportion,
    SuiteRecord,
    ThreatRecord,
    read_record,
)
from temper.records.files import append_line, sha256_of, write_atomic, write_once
from temper.records.folders import (
    CrossvalFolder,
    RunFolder,
    SweepFolder,
    discard_leftovers,
    record_files,
    refuse_second,
)
from temper.records.ledger import LedgerRow, ProxyAgreement, SweepRecord, read_ledger
from temper.records.outcomes import read_columns, read_outcomes, write_outcomes
from temper.records.recipe_hash import hash_of_recipe

__all__ = [
    "SCHEMA_VERSION",
    "AttackRecord",
    "CorruptionRecord",
    "Cost",
    "CrossvalFolder",
    "CrossvalRecord",
    "CurvePoint",
    "DataRecord",
    "EvaluationRecord",
    "FileRecord",
    "FoldRun",
    "GateRecord",
    "Interval",
    "LedgerRow",
    "Metrics",
    "MetricsRecord",
    "MinimumNormRecord",
    "ModelRecord",
    "OverTargets",
    "Promises",
    "Proportion",
    "ProxyAgreement",
    "RunFolder",
    "SavedImages",
    "Spread",
    "SuiteRecord",
    "SweepFolder",
    "SweepRecord",
    "TargetSummary",
    "ThreatRecord",
    "append_line",
    "discard_leftovers",
    "escape_markdown",
    "hash_of_recipe",
    "read_columns",
    "read_crossval",
    "read_ledger",
    "read_outcomes",
    "read_record",
    "read_saved_images",
    "record_files",
    "refuse_second",
    "sha256_of",
    "spreadsheet_cell",
    "write_atomic",
    "write_once",
    "write_outcomes",
    "write_saved_images",
]
