"""Further test sets of a record, computed again from their outcomes."""

from collections.abc import Iterator

import numpy as np

from temper.errors import RecordError
from temper.records import FurtherTestRecord
from temper.statistics import numbers_of_test, slices_of
from temper.statistics.slices import PREFIX
from temper.storage import beside
from temper.verification.evidence import Evidence, read_evidence_columns
from temper.verification.record import Check, check_of, differences


def check_further_tests(evidence: Evidence) -> Check:
    """What the record says of each further test set, and that its gates stand there."""
    record = evidence.record
    problems: list[str] = []
    gates = {gate.name for gate in record.gates}
    for one in record.tests:
        problems += [f"no gate '{name}'" for name in (f"gates, {one.name}",) if name not in gates]
        try:
            problems += _problems(evidence, one, outcomes_of_test(evidence, one.name))
        except RecordError as problem:
            problems.append(str(problem))
    return check_of("further test sets", problems, f"{len(record.tests)}, from the outcomes of each")


def outcomes_of_test(evidence: Evidence, name: str) -> dict[str, np.ndarray]:
    """The columns (N,) of the outcomes on the further test set ``name``.

    Raises:
        RecordError: the record names none, or they are missing or damaged.
    """
    file = evidence.record.files.get(f"outcomes of {name}")
    if file is None:
        raise RecordError(f"{evidence.path}: names no outcomes of {name}")
    return read_evidence_columns(beside(evidence.folder, file.path), len(evidence.record.data.classes))


def _problems(evidence: Evidence, one: FurtherTestRecord, columns: dict[str, np.ndarray]) -> Iterator[str]:
    if len(np.unique(columns["row"])) != len(columns["row"]):
        yield f"{one.name}: an image occurs twice"
    if not np.array_equal(columns["correct"], columns["prediction"] == columns["label"]):
        yield f"{one.name}: 'correct' is not where prediction and label agree"
    if (columns["robust"] & ~columns["correct"]).any():
        yield f"{one.name}: an image counts as robust, but not as correct"
    found = numbers_of_test(columns, evidence.record.clean_acc, evidence.record.robust_acc)
    claimed = {name: getattr(one, name) for name in found}
    yield from differences(f"tests.{one.name}", claimed, found)
    if one.slices is not None or any(name.startswith(PREFIX) for name in columns):  # older records have none
        yield from differences(f"tests.{one.name}.slices", one.slices, slices_of(columns))
