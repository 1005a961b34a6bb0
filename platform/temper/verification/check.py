"""The checks that need no model: files, recipe, outcomes, numbers, status, saved images."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from temper.errors import RecordError
from temper.records import FileRecord, read_record, sha256_of
from temper.statistics.slices import PREFIX
from temper.storage import beside, named
from temper.verification import numbers
from temper.verification.answers import check_answers
from temper.verification.cascades import curve_cascades, main_cascade, other_cascades
from temper.verification.evidence import COLUMNS, Evidence, read_evidence, record_of
from temper.verification.further_tests import check_further_tests
from temper.verification.recipe import check_recipe, is_run
from temper.verification.record import Check, VerificationRecord, check_of, differences
from temper.verification.rejection import check_rejection
from temper.verification.sources import UNKNOWN, check_sources

NUMBERS: Final[tuple[Callable[[Evidence], Check], ...]] = (
    numbers.check_clean,
    numbers.check_robust,
    numbers.check_classes,
    numbers.check_slices,
    check_further_tests,
    numbers.check_attacks,
    numbers.check_threats,
    numbers.check_corruptions,
    numbers.check_minimum_norms,
    numbers.check_promises,
    check_answers,
    check_rejection,
)

NOT_CHECKED = (
    "created, cost and environment, and the seconds of the attacks: no kept file shows them",
    "advice: it follows from numbers that are checked, and from a training log that is not kept with it",
    "metrics.robust.auroc and metrics.robust.ece: logits under attack are not kept",
    "rejection.under_attack, where it was measured: logits under attack are not kept",
)
"""Of any record."""
OF_TESTS = "tests: the images of further test sets are not attacked again; their outcomes are checked"


def check_record(path: Path) -> list[Check]:
    """Check the record file ``path`` against its files and its outcomes.

    Raises:
        RecordError: no record that can be read.
    """
    record = read_record(path)
    checks = [check_file(path.parent, name, file) for name, file in record.files.items()]
    checks.append(_check_names(is_run(record), record.files))
    if "chunks" in record.files:
        checks.append(check_sources(path, record))
    try:
        evidence = read_evidence(path)
    except RecordError as problem:
        return [*checks, Check(name="outcomes", passed=False, detail=str(problem))]
    columns = check_columns(evidence)
    checks += [columns, check_recipe(evidence), check_status(evidence)]
    if not columns.passed:
        return checks
    return [*checks, check_outcomes(evidence), *(check(evidence) for check in NUMBERS), check_saved(evidence)]


def verify_shallow(path: Path) -> VerificationRecord:
    """Check a record file or a run folder without loading its model.

    Raises:
        UsageError: no such file or folder.
        RecordError: no record that can be read.
    """
    file = record_of(path)
    return VerificationRecord(
        record=named(file),
        name=read_record(file).name,
        depth="shallow",
        checks=check_record(file),
        not_checked=[
            "the model, the images and new attacks: a shallow check does not load them",
            *unknown_of(file),
        ],
    )


def unknown_of(path: Path) -> list[str]:
    """What no check of the record file ``path`` can say."""
    record = read_record(path)
    further = [OF_TESTS] if record.tests else []
    return [*NOT_CHECKED, *further, *([] if "chunks" in record.files else [UNKNOWN])]


def check_file(folder: Path, name: str, file: FileRecord) -> Check:
    """The SHA-256 of one file that the record names."""
    path = beside(folder, file.path)
    if not path.is_file():
        return Check(name=f"file {name}", passed=False, detail=f"{path}: no such file")
    found = sha256_of(path)
    problems = [] if found == file.sha256 else [f"{path}: SHA-256 is {found[:16]}, not {file.sha256[:16]}"]
    return check_of(f"file {name}", problems, f"{file.path}, SHA-256 {found[:16]}")


def _check_names(is_ours: bool, files: dict[str, FileRecord]) -> Check:
    needed = ("outcomes", "adversarial", *(("checkpoint", "recipe") if is_ours else ()))
    missing = [name for name in needed if name not in files]
    return check_of("files", [f"the record names no {name}" for name in missing], f"{len(files)} files named")


def check_columns(evidence: Evidence) -> Check:
    """The outcomes have the columns that the record speaks of, and no others."""
    record, found = evidence.record, set(evidence.columns)
    expected = set(COLUMNS)
    for cascade in (
        main_cascade(evidence),
        *(one for one, _ in other_cascades(evidence)),
        *curve_cascades(evidence),
    ):
        expected |= cascade.names()
    for group in record.corruptions:
        severities = numbers.SEVERITIES
        expected |= {f"{group.group}/{kind}/{level}/correct" for kind in group.kinds for level in severities}
    expected |= {f"{PREFIX}{one.attribute}" for one in record.slices}
    if record.confusion is not None:  # as in every record since outcomes have them
        expected.add("confidence")
        found.discard("path")  # not all shards have them
    if record.minimum_norm is not None:
        expected.add("minimum_norm")
    elif not evidence.columns["correct"].any():
        found.discard("minimum_norm")  # nothing was there to be found
    problems = [f"no column '{name}'" for name in sorted(expected - found)]
    problems += [f"the record does not mention the column '{name}'" for name in sorted(found - expected)]
    return check_of("columns", problems, f"{len(found)} columns of {evidence.num_images} images")


def check_outcomes(evidence: Evidence) -> Check:
    """The outcomes agree with themselves, and with how many images the record says there are."""
    columns, record = evidence.columns, evidence.record
    problems: list[str] = []
    if len(np.unique(columns["row"])) != evidence.num_images:
        problems.append("an image occurs twice")
    if not np.array_equal(columns["correct"], columns["prediction"] == columns["label"]):
        problems.append("'correct' is not where prediction and label agree")
    cascades = [main_cascade(evidence), *(one for one, _ in other_cascades(evidence))]
    for cascade in (*cascades, *curve_cascades(evidence)):
        problems += cascade.problems()
    problems += differences("data.num_images", record.data.num_images, evidence.num_images)
    return check_of("outcomes", problems, f"{evidence.num_images} images, each member's work adds up")


def check_status(evidence: Evidence) -> Check:
    """The status is what the gates say."""
    return check_of("status", _status_problems(evidence), f"{evidence.record.status}, as the gates say")


def _status_problems(evidence: Evidence) -> Iterator[str]:
    record = evidence.record
    failed = [gate.name for gate in record.gates if not gate.passed]
    if not record.gates:
        yield "no gates in the record"
    if record.status != ("blocked" if failed else "ok"):
        yield f"status is '{record.status}', but {', '.join(failed) or 'no gate'} failed"
    attacks = [*record.attacks, *(attack for other in record.others for attack in other.attacks)]
    rejected = sum(attack.num_rejected for attack in attacks)
    for gate in record.gates:
        if gate.name != "threat model kept":
            continue
        # What was rejected within other eps of a curve is not in the record.
        if (gate.passed and rejected) or not (gate.passed or rejected or record.curve):
            yield f"the gate '{gate.name}' does not agree with {rejected} rejected images"


def check_saved(evidence: Evidence) -> Check:
    """The saved adversarial images are of images that fell, with the labels and answers of the outcomes."""
    return check_of(
        "saved images", _saved_problems(evidence), f"{len(evidence.saved.rows)} images, as in the outcomes"
    )


def _saved_problems(evidence: Evidence) -> Iterator[str]:
    saved, columns, main = evidence.saved, evidence.columns, main_cascade(evidence)
    if saved.threat != evidence.record.threat:
        yield f"saved for {saved.threat.label}, the record is about {evidence.record.threat.label}"
    places = {int(row): place for place, row in enumerate(columns["row"])}
    strange = [int(row) for row in saved.rows if int(row) not in places]
    if strange:
        yield f"image {strange[0]} was not evaluated"
        return
    where = np.array([places[int(row)] for row in saved.rows], dtype=np.int64)
    if (columns["robust"] | ~columns["correct"])[where].any():
        yield "an image that did not fall to an attack"
    if not np.array_equal(columns["label"][where], saved.labels):
        yield "other labels than in the outcomes"
    if not np.array_equal(main.predictions()[where], saved.predictions):
        yield "other predictions than in the outcomes"
    size = evidence.record.data.image_size
    if len(saved.images) and saved.images.shape[2:] != (size, size):
        yield f"images of {saved.images.shape[2]} x {saved.images.shape[3]} px, the record says {size}"
    if not ((saved.images >= 0) & (saved.images <= 1)).all():
        yield "pixels outside [0,1]"
