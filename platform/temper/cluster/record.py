"""The record of an evaluated run, put together."""

import os
from datetime import UTC, datetime
from pathlib import Path

import torch

from temper.cluster.environment import describe_environment
from temper.cluster.subject import Subject
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
    RunFolder,
    sha256_of,
)
from temper.records.evaluation import Adaptability
from temper.spec import Threat
from temper.training import TrainState


def make_record(
    subject: Subject,
    evaluation: Evaluation,
    written: RunFolder,
    source_acc: Proportion | None,
    start_source_acc: Proportion | None,
    adaptability: Adaptability | None,
) -> EvaluationRecord:
    """Everything that is known of the run and its evaluation; ``written`` is the folder of the record."""
    recipe, run = subject.recipe, subject.run
    return EvaluationRecord(
        name=recipe.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        status=evaluation.status,
        seed=recipe.seed,
        recipe_hash=recipe.hash,
        recipe=recipe.resolved(),
        data=_data_record(subject, "target"),
        source=_data_record(subject, "source") if "source" in subject.shards else None,
        threat=Threat(norm=recipe.threat.norm, eps=recipe.threat.eps),
        suite=evaluation.suite.record,
        clean_acc=evaluation.clean_acc,
        robust_acc=evaluation.robust_acc,
        balanced_acc=evaluation.balanced_acc,
        robust_balanced_acc=evaluation.robust_balanced_acc,
        auroc=evaluation.metrics.clean.auroc,
        metrics=evaluation.metrics,
        source_acc=source_acc,
        source_retention=_retention(source_acc, start_source_acc),
        per_class=evaluation.per_class,
        attacks=evaluation.attacks,
        curve=evaluation.curve,
        others=evaluation.others,
        union_acc=evaluation.union_acc,
        promises=Promises(
            adaptability=adaptability,
            consistency=evaluation.consistency,
            robustness=evaluation.robustness,
        ),
        gates=evaluation.gates,
        model=ModelRecord(
            backbone=recipe.model.backbone,
            num_params=count_params(subject.model),
            num_trained_params=subject.state.num_trained_params,
            adapter=recipe.model.adapter.label if recipe.model.adapter else None,
            adapter_ranks=subject.state.adapter_ranks,
        ),
        cost=_cost(subject.state, evaluation, subject.device),
        environment=describe_environment(),
        files={
            "checkpoint": _file(written, run.checkpoint / "model.safetensors"),
            "outcomes": _file(written, written.outcomes),
            "recipe": _file(written, run.recipe),
        },
    )


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


def _cost(state: TrainState, evaluation: Evaluation, device: torch.device) -> Cost:
    on_gpu = device.type == "cuda"
    return Cost(
        train_s=state.train_s,
        evaluate_s=evaluation.seconds,
        gpu_s=(state.train_s if state.device == "cuda" else 0.0) + (evaluation.seconds if on_gpu else 0.0),
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        num_train_forward=state.passes.forward,
        num_train_backward=state.passes.backward,
        num_evaluate_forward=evaluation.num_forward,
        num_evaluate_backward=evaluation.num_backward,
    )


def _file(run: RunFolder, path: Path) -> FileRecord:
    relative = Path(os.path.relpath(path.resolve(), run.path.resolve()))
    return FileRecord(path=relative.as_posix(), sha256=sha256_of(path))
