"""Evaluating the same model on further test sets."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from temper.evaluation import Evaluation
from temper.records import FurtherTestRecord, GateRecord
from temper.run.answers import with_paths
from temper.run.slices import sliced
from temper.run.target import EvaluationTarget
from temper.statistics import numbers_of_test

COLUMNS = ("label", "correct", "robust")


def on_further_tests(
    evaluation: Evaluation, target: EvaluationTarget, measure: Callable[[EvaluationTarget], Evaluation]
) -> Evaluation:
    """``evaluation`` with what ``measure`` finds on each further test set of ``target``."""
    for name in target.tests:
        other = target.on(name)
        found = sliced(measure(other), other.shards["target"], other.test.rows)
        evaluation = _joined(evaluation, name, other, with_paths(found, other))
    return evaluation


def _joined(main: Evaluation, name: str, other: EvaluationTarget, found: Evaluation) -> Evaluation:
    columns = {column: np.array(found.outcomes[column].to_pylist()) for column in COLUMNS}
    data = other.claim.data
    record = FurtherTestRecord(
        name=name,
        data_name=data.name,
        fingerprint=data.fingerprint,
        split=data.split,
        slices=found.slices,
        unsliced=found.unsliced,
        **numbers_of_test(columns, main.clean_acc, main.robust_acc),
    )
    return replace(
        main,
        tests=[*main.tests, record],
        outcomes_of_tests={**main.outcomes_of_tests, name: found.outcomes},
        gates=[*main.gates, _gate(name, found.gates)],
        seconds=main.seconds + found.seconds,
        num_forward=main.num_forward + found.num_forward,
        num_backward=main.num_backward + found.num_backward,
    )


def _gate(name: str, gates: list[GateRecord]) -> GateRecord:
    """The gates of a further test set as one."""
    failed = [f"{gate.name}: {gate.detail}" for gate in gates if not gate.passed]
    detail = "; ".join(failed) or f"{len(gates)} gates pass on these images too"
    return GateRecord(name=f"gates, {name}", passed=not failed, detail=detail)
