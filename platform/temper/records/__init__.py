"""Typed files: what a run, a sweep and an evaluation leave behind, and how they are written."""

from temper.records.accuracies import Interval, Metrics, MetricsRecord, Proportion
from temper.records.adversarial import SavedImages, read_saved_images, write_saved_images
from temper.records.advice import AdviceKind, AdviceRecord
from temper.records.classification import (
    BaselinesRecord,
    BinaryRecord,
    MistakeRecord,
    OperatingPoint,
    RocPoint,
    ValidationRecord,
)
from temper.records.corruptions import CorruptionRecord
from temper.records.crossval import CrossvalRecord, FoldRun, OverTargets, Spread, TargetSummary, read_crossval
from temper.records.depth import Depth
from temper.records.evaluation import (
    AttackRecord,
    Cost,
    CurvePoint,
    DataRecord,
    EvaluationRecord,
    FileRecord,
    GateRecord,
    MinimumNormRecord,
    ModelRecord,
    Promises,
    ThreatRecord,
    read_record,
)
from temper.records.exported import ExportRecord, Preprocessing, read_export
from temper.records.external import EXTERNAL, LINK, ExternalRecord, read_external
from temper.records.files import append_line, read_rows, sha256_of, write_atomic, write_once
from temper.records.folders import (
    CrossvalFolder,
    RunFolder,
    SweepFolder,
    Within,
    discard_leftovers,
    external_files,
    record_files,
    refuse_second,
)
from temper.records.further_tests import Drop, FurtherTestRecord
from temper.records.ledger import LedgerRow, ProxyAgreement, SweepRecord, read_ledger
from temper.records.outcomes import read_columns, read_outcomes, write_outcomes
from temper.records.recipe_hash import (
    OF_EVALUATION,
    OF_EVALUATION_DATA,
    hash_of_recipe,
    hashed_part,
    of_training,
)
from temper.records.rejection import (
    Calibration,
    CoveragePoint,
    Detection,
    RejectionRecord,
    UnderAttack,
    read_calibration,
)
from temper.records.slices import Gap, SliceRecord, worst_slice
from temper.records.sources import ChunkSource, ModelSource, SourcesRecord, read_sources
from temper.records.suite import SuiteRecord, caution_about

__all__ = [
    "EXTERNAL",
    "LINK",
    "OF_EVALUATION",
    "OF_EVALUATION_DATA",
    "AdviceKind",
    "AdviceRecord",
    "AttackRecord",
    "BaselinesRecord",
    "BinaryRecord",
    "Calibration",
    "ChunkSource",
    "CorruptionRecord",
    "Cost",
    "CoveragePoint",
    "CrossvalFolder",
    "CrossvalRecord",
    "CurvePoint",
    "DataRecord",
    "Depth",
    "Detection",
    "Drop",
    "EvaluationRecord",
    "ExportRecord",
    "ExternalRecord",
    "FileRecord",
    "FoldRun",
    "FurtherTestRecord",
    "Gap",
    "GateRecord",
    "Interval",
    "LedgerRow",
    "Metrics",
    "MetricsRecord",
    "MinimumNormRecord",
    "MistakeRecord",
    "ModelRecord",
    "ModelSource",
    "OperatingPoint",
    "OverTargets",
    "Preprocessing",
    "Promises",
    "Proportion",
    "ProxyAgreement",
    "RejectionRecord",
    "RocPoint",
    "RunFolder",
    "SavedImages",
    "SliceRecord",
    "SourcesRecord",
    "Spread",
    "SuiteRecord",
    "SweepFolder",
    "SweepRecord",
    "TargetSummary",
    "ThreatRecord",
    "UnderAttack",
    "ValidationRecord",
    "Within",
    "append_line",
    "caution_about",
    "discard_leftovers",
    "external_files",
    "hash_of_recipe",
    "hashed_part",
    "of_training",
    "read_calibration",
    "read_columns",
    "read_crossval",
    "read_export",
    "read_external",
    "read_ledger",
    "read_outcomes",
    "read_record",
    "read_rows",
    "read_saved_images",
    "read_sources",
    "record_files",
    "refuse_second",
    "sha256_of",
    "worst_slice",
    "write_atomic",
    "write_once",
    "write_outcomes",
    "write_saved_images",
]
