"""Evaluating: from a target to record.json and its evidence, written exactly once."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from temper.batches import as_floats
from temper.data import warn_of_absent
from temper.errors import ModelError
from temper.evaluation import ChunkStore, Evaluation, conclude, drop_outdated, prepare
from temper.evaluation.cascade import OnProgress
from temper.evaluation.chunk_outcome import ChunkOutcome
from temper.evaluation.counted_model import held_still
from temper.evaluation.evaluate import Relatives
from temper.evaluation.fresh import Fresh
from temper.records import EvaluationRecord, RunFolder, refuse_second, write_once
from temper.run.answers import ask_validation, describe_answers, with_paths
from temper.run.evidence import write_evidence
from temper.run.facts import advised
from temper.run.further_tests import on_further_tests
from temper.run.record import make_record
from temper.run.rejection import calibrate, reject
from temper.run.siblings import siblings_of
from temper.run.slices import sliced
from temper.run.target import EvaluationTarget
from temper.storage import UNREAD, mirrored

logger = logging.getLogger(__name__)
EVALUATION = "evaluation"
"""Folder of finished chunks, beside the record that they become."""


Attack = Callable[[EvaluationTarget, ChunkStore | None, OnProgress | None], ChunkOutcome]
"""Asks and attacks a target, in whichever processes, with the same outcome; chunks in the store are kept."""


def evaluate_target(
    open_target: Callable[[], EvaluationTarget],
    out: Path | None,
    attack: Attack,
    on_progress: OnProgress | None = None,
) -> EvaluationRecord:
    """Evaluate what ``open_target`` opens; the record is written into ``out`` if given.

    An interrupted evaluation resumes: its chunks are kept in ``out`` until the record is written.

    Raises:
        RecordError: ``out`` has a record already.
        TemperError: what cannot be opened, or does not answer as a model does.
    """
    with nullcontext() if out is None else mirrored(out, without=UNREAD - {EVALUATION, "wandb"}) as folder:
        written = None if folder is None else RunFolder(folder)
        if written is not None:
            refuse_second(written)
        return _evaluate(open_target(), written, attack, on_progress)


def _evaluate(
    target: EvaluationTarget, written: RunFolder | None, attack: Attack, on_progress: OnProgress | None
) -> EvaluationRecord:
    fresh, data = target.fresh(), target.claim.data  # before anything asks the model, as a calibration does
    siblings = siblings_of(target.settings.siblings, data.classes, data.image_size, target.device)
    material = target.material()
    calibration = calibrate(target, material)
    relatives = {**target.relatives(), **siblings}

    def measure(one: EvaluationTarget) -> Evaluation:
        return _measure(one, _store(one, written), attack, relatives, fresh, on_progress)

    evaluation = measure(target)
    evaluation = replace(evaluation, gates=[*evaluation.gates, *target.leakage()])
    evaluation = on_further_tests(evaluation, target, measure)
    evaluation = sliced(evaluation, target.shards.get("target"), target.test.rows)
    evaluation = with_paths(evaluation, target)
    validation = ask_validation(target, evaluation.clean_acc)
    answers = describe_answers(evaluation, data.classes, validation)
    if written is not None:
        write_evidence(written, evaluation, target, answers["mistakes"])
    rejection = reject(target, evaluation, material, calibration)
    record = advised(make_record(target, evaluation, answers, written, rejection), evaluation, target)
    store = _store(target, written)
    if written is not None and store is not None:
        write_once(written.record, record.model_dump_json(indent=2) + "\n")
        store.clear()
        target.track(written, evaluation)
    return record


def _store(target: EvaluationTarget, written: RunFolder | None) -> ChunkStore | None:
    """Where the finished chunks of ``target`` are kept; ``None``: nowhere."""
    if written is None:
        return None
    return ChunkStore(written.path / EVALUATION, {**target.identity, "plan": target.plan.hash})


def _measure(
    target: EvaluationTarget,
    store: ChunkStore | None,
    attack: Attack,
    relatives: Relatives,
    fresh: Fresh | None,
    on_progress: OnProgress | None,
) -> Evaluation:
    test, plan = target.test, target.plan
    data, _ = prepare(test.images, test.labels, plan)
    _check_classes(target, data.images[:1])
    warn_of_absent(test.labels, target.claim.data.classes, "evaluation.max_images")
    if store is not None:
        drop_outdated(store, target.model, data, plan, target.device, target.source)
    return conclude(
        target.model,
        data,
        test.rows,
        attack(target, store, on_progress),
        classes=target.claim.data.classes,
        plan=plan,
        device=target.device,
        relatives=relatives,
        fresh=fresh,
    )


def _check_classes(target: EvaluationTarget, image: Tensor) -> None:
    """Check that the model has as many classes as the images, and a gradient, before hours of attacks.

    Raises:
        ModelError: it does not, or does not answer with logits.
    """
    few = as_floats(image, target.device)
    with held_still(target.model, few) as held:
        found = held.model.check_gradient(few).shape[1]
    classes = target.claim.data.classes
    told = (
        f"{target.claim.name}: the model returns {found} logits, the images have {len(classes)} "
        f"classes ({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''})"
    )
    if found < len(classes):
        raise ModelError(f"{told}; it needs one for each")
    if found > len(classes):
        logger.warning("%s; predictions of any other class count as wrong", told)
