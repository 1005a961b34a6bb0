"""The record of an evaluated run, put together."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from temper.evaluation import Evaluation
from temper.models import count_params
from temper.records import (
    Cost,
    DataRecord,
    EvaluationRecord,
    FileRecord,
    ModelRecord,
    Promises,
    Proportion,
    RejectionRecord,
    RunFolder,
    sha256_of,
)
from temper.records.evaluation import Adaptability
from temper.runs.environment import describe_environment
from temper.runs.target import Opened, Subject
from temper.spec import Threat, content_hash
from temper.storage import address_of, named
from temper.training import TrainState


@dataclass(frozen=True)
class Claim:
    """What a record is about."""

    name: str
    seed: int
    recipe: dict[str, Any]
    data: DataRecord
    threat: Threat


def make_record(
    subject: Subject,
    evaluation: Evaluation,
    written: RunFolder,
    source_acc: Proportion | None,
    start_source_acc: Proportion | None,
    adaptability: Adaptability | None,
    rejection: RejectionRecord | None = None,
) -> EvaluationRecord:
    """Everything that is known of the run and its evaluation; ``written`` is the folder of the record."""
    recipe, run = subject.recipe, subject.run
    claim = Claim(
        name=recipe.name,
        seed=recipe.seed,
        recipe=recipe.resolved(),
        data=_data_record(subject, "target"),
        threat=Threat(norm=recipe.threat.norm, eps=recipe.threat.eps),
    )
    return EvaluationRecord(
        **_claimed(claim),
        **_measured(evaluation),
        recipe_hash=recipe.hash,
        source=_data_record(subject, "source") if "source" in subject.shards else None,
        source_acc=source_acc,
        source_retention=_retention(source_acc, start_source_acc),
        rejection=rejection,
        promises=Promises(
            adaptability=adaptability,
            consistency=evaluation.consistency,
            robustness=evaluation.robustness,
        ),
        model=ModelRecord(
            backbone=recipe.model.backbone,
            num_params=count_params(subject.model),
            num_trained_params=subject.state.num_trained_params,
            adapter=recipe.model.adapter.label if recipe.model.adapter else None,
            adapter_ranks=subject.state.adapter_ranks,
        ),
        cost=_cost(subject.state, evaluation, subject.device),
        files={
            "checkpoint": _file(written, run.checkpoint / "model.safetensors"),
            "recipe": _file(written, run.recipe),
            **({"lineage": _file(written, run.lineage)} if run.lineage.exists() else {}),
            **_evidence(written),
        },
    )


def make_foreign_record(
    claim: Claim,
    digest: str,
    opened: Opened,
    evaluation: Evaluation,
    written: RunFolder | None,
    rejection: RejectionRecord | None = None,
) -> EvaluationRecord:
    """The record of a model that was trained elsewhere; ``digest`` is that of its weights."""
    return EvaluationRecord(
        **_claimed(claim),
        **_measured(evaluation),
        recipe_hash=content_hash({"model": digest}),
        source=None,
        source_acc=None,
        source_retention=None,
        rejection=rejection,
        promises=Promises(
            adaptability=None, consistency=evaluation.consistency, robustness=evaluation.robustness
        ),
        model=ModelRecord(
            backbone=type(opened.model).__name__,
            num_params=sum(parameter.numel() for parameter in opened.model.parameters()),
            num_trained_params=0,
        ),
        cost=_cost(None, evaluation, opened.device),
        files=_evidence(written) if written is not None else {},
    )


def _claimed(claim: Claim) -> dict[str, Any]:
    return {
        "name": claim.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": claim.seed,
        "recipe": claim.recipe,
        "data": claim.data,
        "threat": claim.threat,
        "environment": describe_environment(),
    }


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers, whatever was evaluated."""
    same = (
        "status", "clean_acc", "robust_acc", "balanced_acc", "robust_balanced_acc", "metrics", "per_class",
        "attacks", "curve", "others", "union_acc", "corruptions", "minimum_norm", "gates",
    )  # fmt: skip
    numbers = {name: getattr(evaluation, name) for name in same}
    return {**numbers, "suite": evaluation.suite.record, "auroc": evaluation.metrics.clean.auroc}


def _retention(now: Proportion | None, start: Proportion | None) -> float | None:
    return now.value / start.value if now is not None and start is not None and start.count else None


def _data_record(subject: Subject, task: str) -> DataRecord:
    shards = subject.shards[task]
    num_images = len(subject.test.labels) if task == "target" else len(shards.rows("test"))
    return DataRecord(
        name=shards.manifest.name,
        fingerprint=shards.fingerprint,
        classes=shards.classes,
        split="test",
        num_images=num_images,
        image_size=subject.recipe.data.image_size,
    )


def _cost(state: TrainState | None, evaluation: Evaluation, device: torch.device) -> Cost:
    """Of the training too, where it was ours."""
    on_gpu = device.type == "cuda"
    train_s = state.train_s if state else 0.0
    train_gpu_s = train_s if state and state.device == "cuda" else 0.0
    return Cost(
        train_s=train_s,
        evaluate_s=evaluation.seconds,
        gpu_s=train_gpu_s + (evaluation.seconds if on_gpu else 0.0),
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        num_train_forward=state.passes.forward if state else 0,
        num_train_backward=state.passes.backward if state else 0,
        num_evaluate_forward=evaluation.num_forward,
        num_evaluate_backward=evaluation.num_backward,
    )


def _evidence(written: RunFolder) -> dict[str, FileRecord]:
    """What the evaluation itself left there."""
    paths = {
        "outcomes": written.outcomes,
        "adversarial": written.adversarial,
        "chunks": written.sources,
        "figure": written.figure,
    }
    return {name: _file(written, path) for name, path in paths.items() if path.exists()}


def _file(run: RunFolder, path: Path) -> FileRecord:
    if address_of(path) is not None and address_of(run.path) is None:
        return FileRecord(path=named(path), sha256=sha256_of(path))
    relative = Path(os.path.relpath(path.resolve(), run.path.resolve()))
    return FileRecord(path=relative.as_posix(), sha256=sha256_of(path))
