"""Evaluating a finished run: record.json and what it rests on, written exactly once."""

from pathlib import Path
from typing import Any

from temper.cluster.measuring import EVALUATION, measure
from temper.errors import CheckpointError
from temper.evaluation import (
    ChunkStore,
)
from temper.evaluation.cascade import OnProgress
from temper.recipe import load_recipe
from temper.records import EvaluationRecord, RunFolder, refuse_second, write_once
from temper.runs.evidence import track_evaluation, write_evidence
from temper.runs.facts import advised
from temper.runs.record import make_record
from temper.runs.rejection import calibrate_opened, checkpoint_of, material_of, reject
from temper.runs.start import Start
from temper.runs.target import Opened, OpenRun, Subject, siblings_of
from temper.spec import content_hash
from temper.storage import UNREAD, fetched, mirrored, portable
from temper.training import read_state


def evaluate_run(
    path: Path,
    overrides: dict[str, Any] | None = None,
    *,
    out: Path | None = None,
    on_progress: OnProgress | None = None,
) -> EvaluationRecord:
    """Evaluate the best checkpoint of the run folder ``path`` on its test split.

    The record and the outcomes go into ``out``, or beside the checkpoint. An interrupted evaluation goes on
    where it was.

    Raises:
        CheckpointError: no finished run here.
        RecordError: it has a record already.
        ShardError: the images are gone, or not those of the run.
        RecipeError: a suite that is not there, or does not fit.
    """
    _check_finished(RunFolder(fetched(path)))
    with mirrored(out or path, without=UNREAD - {EVALUATION, "wandb"}) as folder:
        return _evaluate(RunFolder(fetched(path)), RunFolder(folder), overrides, on_progress)


def _evaluate(
    run: RunFolder, written: RunFolder, overrides: dict[str, Any] | None, on_progress: OnProgress | None
) -> EvaluationRecord:
    refuse_second(written)
    state = read_state(run.checkpoint)
    recipe = load_recipe(run.recipe, overrides)
    plan = recipe.evaluation.plan(recipe.threat, recipe.seed)
    subject = Subject.open(run, recipe, state)
    material = material_of(subject)
    store = ChunkStore(written.path / EVALUATION, {**_identity(subject), "plan": plan.hash})
    start = Start.of(subject)
    opened = Opened(subject.model, subject.test, subject.device)
    classes = subject.shards["target"].classes
    siblings = siblings_of(recipe.evaluation.siblings, classes, recipe.data.image_size, subject.device)
    calibration = calibrate_opened(opened, material, checkpoint_of(subject))
    evaluation = measure(
        opened,
        OpenRun(portable(run.path), overrides or {}),
        plan,
        classes=classes,
        store=store,
        relatives=start.relatives() | siblings,
        num_workers=recipe.evaluation.num_workers,
        num_threads=recipe.workers.cpus_per_worker,
        use_gpu=recipe.workers.use_gpu,
        on_progress=on_progress,
    )
    write_evidence(
        written,
        evaluation,
        opened,
        name=recipe.name,
        data_name=subject.shards["target"].manifest.name,
        classes=subject.shards["target"].classes,
    )
    record = make_record(
        subject,
        evaluation,
        written,
        start.source_accuracy(subject.model),
        start.own_source_accuracy(),
        start.adaptability(evaluation.balanced_acc),
        reject(opened, evaluation, material, calibration),
    )
    record = advised(record, evaluation, subject, start.probe_correct())
    write_once(written.record, record.model_dump_json(indent=2) + "\n")
    store.clear()
    track_evaluation(written, evaluation, recipe)
    return record


def _check_finished(run: RunFolder) -> None:
    if not run.recipe.exists():
        raise CheckpointError(
            f"{run.path}: no run here (no recipe.yaml); `temper train RECIPE --out {run.path}` makes one"
        )
    if not read_state(run.checkpoint).is_settled:
        raise CheckpointError(
            f"{run.path}: this run is not finished; run `temper train` on it again to go on"
        )


def _identity(subject: Subject) -> dict[str, str]:
    return {
        "checkpoint": checkpoint_of(subject),
        "images": subject.shards["target"].fingerprint,
        "rows": content_hash(subject.test.rows.tolist()),
        "image_size": str(subject.recipe.data.image_size),
    }
