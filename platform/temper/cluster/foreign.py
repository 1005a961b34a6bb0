"""Evaluating a model that was trained elsewhere: any torch module, on shards or on arrays."""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from temper.cluster.evidence import write_evidence
from temper.cluster.facts import advised
from temper.cluster.foreign_models import SourceAnswers, build_foreign, digest_of_model
from temper.cluster.measuring import EVALUATION, measure
from temper.cluster.record import Claim, make_foreign_record
from temper.cluster.rejection import Material, calibrate_opened, material_from, reject
from temper.cluster.subject import Opened, Opener, choose_device, siblings_of
from temper.data import Fit, Images, ShardSet, Split, load_images, stratified_subset
from temper.errors import ModelError, RecipeError
from temper.evaluation import ChunkStore, Evaluation, EvaluationSpec
from temper.evaluation.cascade import OnProgress
from temper.evaluation.evaluate import Relatives
from temper.host import use_cpu
from temper.models import ModelSpec, build_model, start_classes
from temper.records import DataRecord, EvaluationRecord, RunFolder, refuse_second, write_once
from temper.spec import Spec, Threat, content_hash
from temper.storage import Place, fetched, mirrored


class ForeignSpec(Spec):
    """What ``temper evaluate module:function`` evaluates, and how."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    model: str
    """``module:function`` or ``path/to/file.py:function``; the function returns a torch module, images
    (B,3,H,W) in [0,1] to logits (B,C) of the shards' classes, in their order. Or a weights file of
    ``backbone``, with its classifier.
    """
    backbone: str | None = None
    shards: Place
    image_size: int = Field(ge=8, le=1024)
    fit: Fit = "pad"
    split: Split = "test"
    threat: Threat
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = Field(default=0, ge=0, lt=2**31)
    use_gpu: bool | Literal["auto"] = "auto"
    cpus_per_worker: int = Field(default=1, ge=1, le=256)

    @model_validator(mode="after")
    def _names_a_function(self) -> Self:
        if self.backbone is not None:
            return self
        module, _, function = self.model.rpartition(":")
        if not (module and function.isidentifier()):
            raise ValueError(
                f"model: expected module:function or file.py:function, got {self.model!r}; "
                "a weights file needs 'backbone'"
            )
        return self


def evaluate_foreign(
    spec: ForeignSpec, out: Path, *, on_progress: OnProgress | None = None
) -> EvaluationRecord:
    """Evaluate the model that ``spec`` names into ``out``: record.json and what it rests on.

    Raises:
        RecipeError: no such function, or a suite that does not fit.
        ModelError: what it returns is no torch module, or does not answer with logits.
        ShardError: images that are missing or damaged.
        RecordError: ``out`` has a record already.
    """
    refuse_second(RunFolder(fetched(out)))
    opener = OpenForeign(spec)
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
    on_progress: OnProgress | None = None,
) -> tuple[Evaluation, EvaluationRecord]:
    """The record of an opened model of foreign origin; written into ``out``, where one is given.

    Raises:
        TemperError: as ``evaluate_foreign``.
    """
    if settings.rejection is not None and material is None:
        raise RecipeError(
            "evaluation.rejection: it is fitted to validation images, which arrays in memory have not; "
            "give shards, or leave it out"
        )
    with nullcontext(None) if out is None else mirrored(out) as folder:
        return _evaluate_into(
            folder, opened, opener, claim, settings, relatives, material, num_threads, use_gpu, on_progress
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
    on_progress: OnProgress | None,
) -> tuple[Evaluation, EvaluationRecord]:
    plan = settings.plan(claim.threat, claim.seed)
    data = claim.data
    siblings = siblings_of(settings.siblings, data.classes, data.image_size, opened.device)
    identity = {
        "model": digest_of_model(opened.model),
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


@dataclass(frozen=True)
class OpenForeign:
    """Opens the model and the images of a ``ForeignSpec``, in whichever process it is called."""

    spec: ForeignSpec

    def __call__(self) -> Opened:
        spec = self.spec
        device = choose_device(spec.use_gpu)
        shards = ShardSet.open(spec.shards)
        model = build_foreign(spec.model) if spec.backbone is None else self._from_weights(shards.classes)
        images = load_images(shards, spec.split, spec.image_size, spec.fit)
        chosen = stratified_subset(images.labels, spec.evaluation.max_images, spec.seed)
        test = Images(images.images[chosen], images.labels[chosen], images.rows[chosen])
        return Opened(model.to(device).eval(), test, device)

    def _from_weights(self, classes: list[str]) -> nn.Module:
        """A backbone of ours with the weights and the classifier of a file.

        Raises:
            ModelError: weights that do not fit, or without a classifier for so many classes.
        """
        spec = self.spec
        assert spec.backbone is not None
        found = start_classes(spec.model, spec.backbone)
        if found is None or len(found) != len(classes):
            has = "no classifier" if found is None else f"a classifier of {len(found)} classes"
            raise ModelError(f"{spec.model}: has {has}, the shards have {len(classes)} classes")
        built = ModelSpec(backbone=spec.backbone, weights=spec.model)
        heads = {"target": classes, "source": classes}
        return SourceAnswers(build_model(built, heads, image_size=spec.image_size, seed=spec.seed))


def fingerprint_of(images: Images) -> str:
    """16 hex digits over the pixels and the labels of images that come from no shards."""
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(images.labels.tobytes())
    return content_hash([digest.hexdigest(), list(images.images.shape)])
