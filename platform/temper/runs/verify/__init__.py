"""Verifying a record with its model and its images."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from temper.data import ShardSet, read_fingerprint
from temper.errors import TemperError, UsageError
from temper.records import DataRecord, Proportion, read_record
from temper.runs.verify.attacks import MAX_FLIPPED_FRAC, Reexamined
from temper.runs.verify.load import Reopened, check_suite, reopen
from temper.runs.verify.rejection import check_rejection
from temper.storage import named
from temper.verification import (
    Check,
    Evidence,
    VerificationRecord,
    check_of,
    check_record,
    differences,
    is_run,
    read_evidence,
    record_of,
    unknown_of,
)

START_TOLERANCE: Final = 0.01
"""Of what is fitted anew: the probe of the frozen start."""

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
        opened = reopen(evidence, model)
        if isinstance(opened, str):
            not_checked.insert(0, f"the model, the images and new attacks: {opened}")
        else:
            checks += _check_deep(evidence, opened, num_sampled, say, not_checked)
    except TemperError as problem:
        checks.append(Check(name="model", passed=False, detail=str(problem)))
    return VerificationRecord(
        record=named(file), name=record.name, depth="deep", checks=checks, not_checked=not_checked
    )


def _check_deep(
    evidence: Evidence, opened: Reopened, num_sampled: int, say: OnStage, not_checked: list[str]
) -> list[Check]:
    checks = [opened.check, check_images(evidence, opened)]
    suite = check_suite(evidence.record, opened.settings, len(evidence.record.data.classes))
    if isinstance(suite, str):
        not_checked.append(suite)
    else:
        checks.append(suite)
    if not checks[1].passed:
        not_checked.insert(0, "predictions and new attacks: the images are not those of the record")
        return checks
    scene = Reexamined.of(evidence, opened)
    say("asking the model again")
    checks += [scene.check_predictions(), scene.check_adversarial()]
    if opened.start is not None:
        checks.append(check_start(evidence, opened, not_checked))
    rejection = check_rejection(evidence, opened, scene.clean.logits)
    if isinstance(rejection, str):
        not_checked.append(rejection)
    else:
        checks.append(rejection)
    say("attacking it again")
    return [*checks, *scene.attack_again(num_sampled)]


def check_images(evidence: Evidence, opened: Reopened) -> Check:
    """The shards hold the images that the record and its outcomes speak of."""
    record, test = evidence.record, opened.opened.test
    problems = [*_changed("data", record.data, opened, "target")]
    problems += _changed("source", record.source, opened, "source")
    if not np.array_equal(test.rows, evidence.columns["row"]):
        problems.append("the outcomes are of other images than the recipe chooses")
    elif not np.array_equal(test.labels, evidence.columns["label"]):
        problems.append("the outcomes have other labels than the shards")
    return check_of("images", problems, f"{len(test.rows)} images, {record.data.fingerprint}")


def _changed(name: str, claimed: DataRecord | None, opened: Reopened, task: str) -> Iterator[str]:
    """Where the shards of ``task`` are not what is ``claimed`` of them, whatever their manifest says."""
    if claimed is None or task not in opened.shards:
        present = "shards" if task in opened.shards else None
        yield from differences(name, claimed and "shards", present)
        return
    shards, test = opened.shards[task], opened.opened.test
    found = DataRecord(
        name=shards.manifest.name,
        fingerprint=shards.fingerprint,
        classes=shards.classes,
        split=opened.split,
        num_images=len(test.labels) if task == "target" else len(shards.rows("test")),
        image_size=test.images.shape[-1],
    )
    yield from differences(name, claimed, found)
    try:
        # A fold has a fingerprint of its own, made from that of all the images.
        whole = ShardSet.open(shards.path)
        actual = read_fingerprint(whole)
    except TemperError as problem:
        yield str(problem)
        return
    if actual != whole.fingerprint:
        yield f"{shards.path}: the images have changed ({actual}, not {whole.fingerprint})"


def check_start(evidence: Evidence, opened: Reopened, not_checked: list[str]) -> Check:
    """Accuracy on the source, and what the target gained over the frozen start."""
    record, start = evidence.record, opened.start
    assert start is not None
    problems = [*_flips("source_acc", record.source_acc, start.source_accuracy(start.subject.model))]
    if start.model is None:
        not_checked.append("source_retention and adaptability: the weights of the start are gone")
        return check_of("source and start", problems, "source accuracy")
    own = start.own_source_accuracy()
    now = record.source_acc
    retention = now.value / own.value if now is not None and own is not None and own.count else None
    problems += differences("source_retention", record.source_retention, retention, START_TOLERANCE)
    claimed, found = record.promises.adaptability, start.adaptability(record.balanced_acc)
    for name in ("frozen_start_balanced_acc", "gain"):
        one, other = getattr(claimed, name, None), getattr(found, name, None)
        problems += differences(f"promises.adaptability.{name}", one, other, START_TOLERANCE)
    return check_of("source and start", problems, "source accuracy, retention and adaptability")


def _flips(name: str, claimed: Proportion | None, found: Proportion | None) -> list[str]:
    if claimed is None or found is None or claimed.total != found.total:
        return [*differences(name, claimed, found)]
    close = abs(claimed.count - found.count) <= MAX_FLIPPED_FRAC * found.total
    return [] if close else [*differences(name, claimed, found)]
