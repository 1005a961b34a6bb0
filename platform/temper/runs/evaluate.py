"""Evaluating: from a target to record.json and what it rests on, written exactly once."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

from temper.evaluation import ChunkStore, Evaluation
from temper.evaluation.cascade import OnProgress
from temper.evaluation.evaluate import Relatives
from temper.evaluation.fresh import Fresh
from temper.records import EvaluationRecord, RunFolder, refuse_second, write_once
from temper.runs.evidence import write_evidence
from temper.runs.facts import advised
from temper.runs.record import make_record
from temper.runs.rejection import calibrate, reject
from temper.runs.siblings import siblings_of
from temper.runs.target import EvaluationTarget
from temper.storage import UNREAD, mirrored

EVALUATION = "evaluation"
"""Folder of finished chunks, beside the record that they become."""


class Measure(Protocol):
    """Asks and attacks a target, in whichever processes, with the same outcome."""

    def __call__(
        self,
        target: EvaluationTarget,
        *,
        store: ChunkStore | None,
        relatives: Relatives,
        fresh: Fresh | None,
        on_progress: OnProgress | None,
    ) -> Evaluation: ...


def evaluate_target(
    open_target: Callable[[], EvaluationTarget],
    out: Path | None,
    measure: Measure,
    on_progress: OnProgress | None = None,
) -> EvaluationRecord:
    """The record of what ``open_target`` opens; written into ``out``, where one is given.

    An interrupted evaluation goes on where it was: its chunks lie in ``out`` until the record is there.

    Raises:
        RecordError: ``out`` has a record already.
        TemperError: what cannot be opened, or does not answer as a model does.
    """
    with nullcontext() if out is None else mirrored(out, without=UNREAD - {EVALUATION, "wandb"}) as folder:
        written = None if folder is None else RunFolder(folder)
        if written is not None:
            refuse_second(written)
        return _evaluate(open_target(), written, measure, on_progress)


def _evaluate(
    target: EvaluationTarget, written: RunFolder | None, measure: Measure, on_progress: OnProgress | None
) -> EvaluationRecord:
    fresh, data = target.fresh(), target.claim.data  # before anything asks the model, as a calibration does
    siblings = siblings_of(target.settings.siblings, data.classes, data.image_size, target.device)
    identity = {**target.identity, "plan": target.plan.hash}
    store = None if written is None else ChunkStore(written.path / EVALUATION, identity)
    material = target.material()
    calibration = calibrate(target, material)
    evaluation = measure(
        target,
        store=store,
        relatives={**target.relatives(), **siblings},
        fresh=fresh,
        on_progress=on_progress,
    )
    if written is not None:
        write_evidence(written, evaluation, target)
    rejection = reject(target, evaluation, material, calibration)
    record = advised(make_record(target, evaluation, written, rejection), evaluation, target)
    if written is not None and store is not None:
        write_once(written.record, record.model_dump_json(indent=2) + "\n")
        store.clear()
        target.track(written, evaluation)
    return record
