"""Evaluating a model that was trained elsewhere: any torch module, on shards or on arrays."""

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from temper.cluster.measuring import EVALUATION, measure
from temper.data import Images, ShardSet
from temper.errors import RecipeError
from temper.evaluation import ChunkStore, Evaluation, EvaluationSpec
from temper.evaluation.cascade import OnProgress
from temper.evaluation.evaluate import Relatives
from temper.evaluation.fresh import Fresh, copies_of
from temper.host import use_cpu
from temper.records import DataRecord, EvaluationRecord, RunFolder, refuse_second, write_once
from temper.runs.evidence import write_evidence
from temper.runs.external_model import ExternalModelSpec, OpenExternalModel
from temper.runs.facts import advised
from temper.runs.record import Claim, make_foreign_record
from temper.runs.rejection import Material, calibrate_opened, material_from, reject
from temper.runs.target import Opened, Opener, siblings_of
from temper.spec import content_hash
from temper.storage import fetched, mirrored


def evaluate_external(
    spec: ExternalModelSpec, out: Path, *, on_progress: OnProgress | None = None
) -> EvaluationRecord:
    """Evaluate the model that ``spec`` names into ``out``: record.json and what it rests on.

    Raises:
        RecipeError: no such function, or a suite that does not fit.
        ModelError: what it returns is no torch module, or does not answer with logits.
        ShardError: images that are missing or damaged.
        RecordError: ``out`` has a record already.
    """
    refuse_second(RunFolder(fetched(out)))
    opener = OpenExternalModel(spec)
    shards = ShardSet.open(spec.shards)
    use_cpu(spec.cpus_per_worker)
    opened = opener()
    claim = Claim(
        name=spec.name,
        seed=spec.seed,
        recipe=spec.model_dump(mode="json"),
        data=DataRecord(
            name=shards.manifest.name,
            fingerprint=shards.fingerprint,
            classes=shards.classes,
            split=spec.split,
            num_images=len(opened.test.labels),
            image_size=spec.image_size,
        ),
        threat=spec.threat,
    )
    _, record = evaluate_opened(
        opened,
        opener,
        claim,
        spec.evaluation,
        out=out,
        material=material_from(
            spec.evaluation.rejection, shards, spec.image_size, spec.fit, spec.evaluation.batch_size
        ),
        num_threads=spec.cpus_per_worker,
        use_gpu=spec.use_gpu,
        fresh=opener.fresh,
        on_progress=on_progress,
    )
    return record


def evaluate_opened(
    opened: Opened,
    opener: Opener,
    claim: Claim,
    settings: EvaluationSpec,
    *,
    out: Path | None,
    relatives: Relatives | None = None,
    material: Material | None = None,
    num_threads: int = 1,
    use_gpu: Any = "auto",
    fresh: Fresh | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Evaluation, EvaluationRecord]:
    """The record of an opened model of foreign origin; written into ``out``, where one is given.

    ``fresh`` makes models that were never asked; copies of the opened one are, where nothing is given.

    Raises:
        TemperError: as ``evaluate_external``.
    """
    if settings.rejection is not None and material is None:
        raise RecipeError(
            "evaluation.rejection: it is fitted to validation images, which arrays in memory have not; "
            "give shards, or leave it out"
        )
    # Before anything asks it, as the calibration of a rejection does.
    fresh = fresh or copies_of(opened.model)
    with nullcontext(None) if out is None else mirrored(out) as folder:
        return _evaluate_into(
            folder,
            opened,
            opener,
            claim,
            settings,
            relatives,
            material,
            num_threads,
            use_gpu,
            fresh,
            on_progress,
        )


def _evaluate_into(
    out: Path | None,
    opened: Opened,
    opener: Opener,
    claim: Claim,
    settings: EvaluationSpec,
    relatives: Relatives | None,
    material: Material | None,
    num_threads: int,
    use_gpu: Any,
    fresh: Fresh | None,
    on_progress: OnProgress | None,
) -> tuple[Evaluation, EvaluationRecord]:
    plan = settings.plan(claim.threat, claim.seed)
    data = claim.data
    siblings = siblings_of(settings.siblings, data.classes, data.image_size, opened.device)
    identity = {
        "model": opened.source.weights,
        "code": opened.source.code,
        "images": fingerprint_of(opened.test),
        "rows": content_hash(opened.test.rows.tolist()),
        "plan": plan.hash,
    }
    store = ChunkStore(out / EVALUATION, identity) if out is not None else None
    calibration = calibrate_opened(opened, material, identity["model"])
    evaluation = measure(
        opened,
        opener,
        plan,
        classes=data.classes,
        store=store,
        relatives={**(relatives or {}), **siblings},
        num_workers=settings.num_workers,
        num_threads=num_threads,
        use_gpu=use_gpu,
        fresh=fresh,
        on_progress=on_progress,
    )
    written = None if out is None else RunFolder(out)
    if written is not None:
        write_evidence(
            written,
            evaluation,
            opened,
            name=claim.name,
            data_name=claim.data.name,
            classes=claim.data.classes,
        )
    rejection = reject(opened, evaluation, material, calibration)
    record = make_foreign_record(claim, identity["model"], opened, evaluation, written, rejection)
    record = advised(record, evaluation)
    if written is not None and store is not None:
        write_once(written.record, record.model_dump_json(indent=2) + "\n")
        store.clear()
    return evaluation, record


def fingerprint_of(images: Images) -> str:
    """16 hex digits over the pixels and the labels of images that come from no shards."""
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(images.labels.tobytes())
    return content_hash([digest.hexdigest(), list(images.images.shape)])
