"""The facts for advice: a record, its outcomes, and the course of its run."""

import logging
import math
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import pyarrow as pa

from temper.advice import Answers, Course, Facts, give_advice
from temper.data import ShardSet
from temper.errors import StorageError, TemperError
from temper.evaluation import Evaluation
from temper.records import EvaluationRecord, RunFolder, read_columns, read_epochs, read_record
from temper.run.target import EvaluationTarget
from temper.storage import fetched, named
from temper.training import TrainState

logger = logging.getLogger(__name__)
TARGET_LOSS, LOSS = "train/target/loss", "train/loss"


def advised(record: EvaluationRecord, evaluation: Evaluation, target: EvaluationTarget) -> EvaluationRecord:
    """The record with its advice."""
    facts = Facts.of(record, _answers_in(evaluation.outcomes))
    return record.model_copy(update={"advice": give_advice(target.informed(facts, record))})


def facts_of_run(run: RunFolder) -> Facts:
    """The facts in a run's record and its outcomes.

    Raises:
        RecordError: no record, or none that can be read.
    """
    record = read_record(run.record)
    columns = read_columns(run.outcomes, ["row", "label", "correct", "robust"])
    answers = Answers(columns["row"], columns["label"], columns["correct"], columns["robust"])
    return Facts.of(record, answers)


def course_of(run: RunFolder, state: TrainState, target: ShardSet, max_val_images: int | None) -> Course:
    """How ``run`` went: its state, its log, and what it was trained and validated on."""
    best, num_val = state.best_metrics, sum(target.class_counts("val"))
    probe: dict[str, float] = getattr(state, "probe_metrics", None) or {}
    losses = _losses_of(run, state)
    return Course(
        losses=losses,
        first_epoch=state.next_epoch - len(losses),
        best_epoch=state.best_epoch,
        stopped=state.stopped,
        val_acc=best.get("val/target/clean_acc"),
        num_val=num_val if max_val_images is None else min(num_val, max_val_images),
        probe_val_acc=probe.get("val/target/clean_acc"),
        num_train=dict(zip(target.classes, target.class_counts("train"), strict=True)),
    )


def _losses_of(run: RunFolder, state: TrainState) -> list[float]:
    """The target's training loss of every epoch up to the last, back to one that the log lacks."""
    found: dict[int, float] = {}
    try:
        for row in read_epochs(run.metrics):
            loss = row.get(TARGET_LOSS, row.get(LOSS))
            if loss is not None and math.isfinite(loss):
                found[row["epoch"]] = float(loss)
    except (StorageError, ValueError, TypeError):
        return []
    epochs = list(takewhile(found.__contains__, reversed(range(state.next_epoch))))
    return [found[epoch] for epoch in reversed(epochs)]


def plain_sibling(paths: Sequence[Path], record: EvaluationRecord) -> Facts | None:
    """The first run of ``paths`` that is not hardened and was evaluated on the same images."""
    for path in paths:
        facts = _comparable(path, record)
        if facts is not None and not facts.is_hardened:
            return facts
    return None


def _comparable(path: Path, record: EvaluationRecord) -> Facts | None:
    run = RunFolder(fetched(path))
    if not run.record.exists():
        return None
    try:
        other, facts = read_record(run.record), facts_of_run(run)
    except TemperError as problem:
        logger.warning("no advice beside the sibling %s: %s", named(path), problem)
        return None
    same = ("fingerprint", "split", "num_images", "image_size")
    is_same = all(getattr(other.data, name) == getattr(record.data, name) for name in same)
    return facts if is_same and other.threat == record.threat else None


def _answers_in(outcomes: pa.Table) -> Answers:
    rows, labels = (np.array(outcomes[name].to_pylist(), np.int64) for name in ("row", "label"))
    correct, robust = (np.array(outcomes[name].to_pylist(), bool) for name in ("correct", "robust"))
    return Answers(rows, labels, correct, robust)
