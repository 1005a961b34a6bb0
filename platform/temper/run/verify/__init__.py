"""Verifying a record with its model and its images."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from temper.data import ShardSet, Split
from temper.errors import TemperError, UsageError
from temper.records import DataRecord, FurtherTestRecord, Proportion, read_record
from temper.run.answers import ask_validation
from temper.run.run_target import RunTarget
from temper.run.slices import attributes_of, without_slices
from temper.run.target import EvaluationTarget, data_record
from temper.run.verify.attacks import MAX_FLIPPED_FRAC, Reexamined
from temper.run.verify.load import check_suite, reopen
from temper.run.verify.rejection import check_rejection
from temper.statistics.slices import PREFIX
from temper.storage import named
from temper.verification import (
    Check,
    Evidence,
    VerificationRecord,
    check_of,
    check_record,
    differences,
    is_run,
    outcomes_of_test,
    read_evidence,
    record_of,
    unknown_of,
)

START_TOLERANCE: Final = 0.01
"""Of what is fitted anew: the probe of the frozen start."""
VALIDATION_TOLERANCE: Final = 0.02
"""Of balanced accuracy on validation images, and of a threshold between two answers to them."""

OnStage = Callable[[str], None]


def verify_record(
    path: Path, *, num_sampled: int = 64, model: str | None = None, on_stage: OnStage | None = None
) -> VerificationRecord:
    """Check a record file or a run folder, with its model, its images, and new attacks on a sample of them.

    ``model`` names a function that makes the model, where it was trained elsewhere.

    Raises:
        UsageError: no such file or folder, or a ``model`` where there is a checkpoint.
        RecordError: no record that can be read.
    """
    file = record_of(path)
    record = read_record(file)
    checks, not_checked = check_record(file), unknown_of(file)
    if model is not None and is_run(record):
        raise UsageError(f"{file}: --model is for models from elsewhere; this one has a checkpoint")
    say = on_stage or (lambda _stage: None)
    try:
        evidence = read_evidence(file)
        say("opening the model and its images")
        found = reopen(evidence, model)
        if isinstance(found, str):
            not_checked.insert(0, f"the model, the images and new attacks: {found}")
        else:
            target, described = found
            checks += [described, *_check_deep(evidence, target, num_sampled, say, not_checked)]
    except TemperError as problem:
        checks.append(Check(name="model", passed=False, detail=str(problem)))
    return VerificationRecord(
        record=named(file), name=record.name, depth="deep", checks=checks, not_checked=not_checked
    )


def _check_deep(
    evidence: Evidence, target: EvaluationTarget, num_sampled: int, say: OnStage, not_checked: list[str]
) -> list[Check]:
    checks = [check_images(evidence, target)]
    suite = check_suite(evidence.record, target.settings, len(evidence.record.data.classes))
    if isinstance(suite, str):
        not_checked.append(suite)
    else:
        checks.append(suite)
    if not checks[0].passed:
        not_checked.insert(0, "predictions and new attacks: the images are not those of the record")
        return checks
    scene = Reexamined.of(evidence, target)
    say("repeating its predictions")
    checks += [scene.check_predictions(), scene.check_adversarial()]
    if evidence.record.confusion is not None:  # earlier records say nothing of validation
        checks.append(check_validation(evidence, target))
    if isinstance(target, RunTarget):
        checks.append(check_start(evidence, target, not_checked))
    rejection = check_rejection(evidence, target, scene.clean.logits)
    if isinstance(rejection, str):
        not_checked.append(rejection)
    else:
        checks.append(rejection)
    say("attacking it again")
    return [*checks, *scene.attack_again(num_sampled)]


def check_images(evidence: Evidence, target: EvaluationTarget) -> Check:
    """The shards hold the images that the record and its outcomes speak of."""
    record, test = evidence.record, target.test
    problems = [*_changed("data", record.data, target, "target")]
    problems += _changed("source", record.source, target, "source")
    if not np.array_equal(test.rows, evidence.columns["row"]):
        problems.append("the outcomes are of other images than the recipe chooses")
    elif not np.array_equal(test.labels, evidence.columns["label"]):
        problems.append("the outcomes have other labels than the shards")
    problems += _changed_attributes(record.unsliced, evidence.columns, target)
    for one in record.tests:
        problems += _changed_test(evidence, target, one)
    return check_of("images", problems, f"{len(test.rows)} images, {record.data.fingerprint}")


def _changed_attributes(
    unsliced: list[str] | None, columns: Mapping[str, np.ndarray], target: EvaluationTarget
) -> Iterator[str]:
    """Where outcomes and record say something else of attributes than the shards of ``target``."""
    claimed = {name: values for name, values in columns.items() if name.startswith(PREFIX)}
    shards = target.shards.get("target")
    found = attributes_of(shards, target.test.rows) if claimed or unsliced is not None else {}
    if unsliced is not None:  # as in every record since they are named
        yield from differences("unsliced", unsliced, without_slices(shards, found))
    for name, values in claimed.items():
        if name not in found or not np.array_equal(values, found[name]):
            yield f"the outcomes have another '{name}' than the shards"


def _changed_test(evidence: Evidence, target: EvaluationTarget, claimed: FurtherTestRecord) -> Iterator[str]:
    if claimed.name not in target.tests:
        yield f"tests: the recipe names no '{claimed.name}'"
        return
    other, columns = target.on(claimed.name), outcomes_of_test(evidence, claimed.name)
    for field, value in (
        ("fingerprint", other.claim.data.fingerprint),
        ("data_name", other.claim.data.name),
        ("split", other.claim.data.split),
    ):
        yield from differences(f"tests.{claimed.name}.{field}", getattr(claimed, field), value)
    if not np.array_equal(other.test.rows, columns["row"]):
        yield f"the outcomes of {claimed.name} are of other images than the recipe chooses"
    elif not np.array_equal(other.test.labels, columns["label"]):
        yield f"the outcomes of {claimed.name} have other labels than the shards"
    for problem in _changed_attributes(claimed.unsliced, columns, other):
        yield f"tests.{claimed.name}: {problem}"


def _changed(name: str, claimed: DataRecord | None, target: EvaluationTarget, task: str) -> Iterator[str]:
    """Where the shards of ``task`` are not what is ``claimed`` of them, whatever their manifest says."""
    if claimed is None or task not in target.shards:
        present = "shards" if task in target.shards else None
        yield from differences(name, claimed and "shards", present)
        return
    shards = target.shards[task]
    num_images = len(target.test.labels) if task == "target" else len(shards.rows("test"))
    split: Split = target.claim.data.split if task == "target" else "test"  # type: ignore[assignment]
    found = data_record(shards, split, num_images, target.test.images.shape[-1])
    yield from differences(name, claimed, found)
    try:
        # A fold has a fingerprint of its own, made from that of all the images.
        whole = ShardSet.open(shards.path)
        actual = whole.read_fingerprint()
    except TemperError as problem:
        yield str(problem)
        return
    if actual != whole.fingerprint:
        yield f"{shards.path}: the images have changed ({actual}, not {whole.fingerprint})"


def check_validation(evidence: Evidence, target: EvaluationTarget) -> Check:
    """Accuracy on validation images, and the threshold that was chosen there."""
    record = evidence.record
    found = ask_validation(target, record.clean_acc)
    if found is None or record.validation is None:
        problems = [*differences("validation", record.validation, found and found.validation)]
        return check_of("validation", problems, "no validation images")
    problems = [*_flips("validation.acc", record.validation.acc, found.validation.acc)]
    problems += differences(
        "validation.balanced_acc",
        record.validation.balanced_acc,
        found.validation.balanced_acc,
        VALIDATION_TOLERANCE,
    )
    threshold = found.threshold(len(record.data.classes)) if record.binary is not None else None
    chosen = record.binary.chosen if record.binary is not None else None
    claimed = None if chosen is None else chosen.threshold
    problems += differences("binary.chosen.threshold", claimed, threshold, VALIDATION_TOLERANCE)
    return check_of("validation", problems, f"{found.validation.acc.total} images")


def check_start(evidence: Evidence, target: RunTarget, not_checked: list[str]) -> Check:
    """Accuracy on the source, and what the target gained over the frozen start."""
    record, found = evidence.record, target.origin(evidence.record.balanced_acc)
    problems = _flips("source_acc", record.source_acc, found.source_acc)
    if target.start.model is None:
        not_checked.append("source_retention and adaptability: the weights of the start are gone")
        return check_of("source and start", problems, "source accuracy")
    # Of what the record says, whose answers may differ a little from those of this machine.
    claimed, start = record.promises.adaptability, target.start
    share_of = start.retention if record.source_retention is None else start.share_kept
    retention = share_of(record.source_acc)
    problems += differences("source_retention", record.source_retention, retention, START_TOLERANCE)
    for name in ("frozen_start_balanced_acc", "gain"):
        one, other = getattr(claimed, name, None), getattr(found.adaptability, name, None)
        problems += differences(f"promises.adaptability.{name}", one, other, START_TOLERANCE)
    return check_of("source and start", problems, "source accuracy, retention and adaptability")


def _flips(name: str, claimed: Proportion | None, found: Proportion | None) -> list[str]:
    if claimed is None or found is None or claimed.total != found.total:
        return [*differences(name, claimed, found)]
    close = abs(claimed.count - found.count) <= MAX_FLIPPED_FRAC * found.total
    return [] if close else [*differences(name, claimed, found)]
