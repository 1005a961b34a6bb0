"""Putting together the record of an evaluation."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from temper.evaluation import Evaluation
from temper.records import (
    Cost,
    EvaluationRecord,
    FileRecord,
    Promises,
    RejectionRecord,
    RunFolder,
    sha256_of,
)
from temper.run.environment import describe_environment
from temper.run.target import EvaluationTarget
from temper.storage import address_of, named
from temper.training import TrainState


def make_record(
    target: EvaluationTarget,
    evaluation: Evaluation,
    answers: Mapping[str, Any],
    written: RunFolder | None,
    rejection: RejectionRecord | None = None,
) -> EvaluationRecord:
    """Everything that is known of a model and its evaluation; ``answers`` are fields about its clean answers.

    ``written`` is the folder of the record.
    """
    claim, origin = target.claim, target.origin(evaluation.balanced_acc)
    return EvaluationRecord(
        **_measured(evaluation),
        **answers,
        name=claim.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=claim.seed,
        recipe=claim.recipe,
        recipe_hash=origin.recipe_hash,
        data=claim.data,
        threat=claim.threat,
        source=origin.source,
        source_acc=origin.source_acc,
        source_retention=origin.source_retention,
        rejection=rejection,
        promises=Promises(
            adaptability=origin.adaptability,
            consistency=evaluation.consistency,
            robustness=evaluation.robustness,
        ),
        model=origin.model,
        cost=_cost(origin.training, evaluation, target.device),
        environment=describe_environment(),
        files={} if written is None else _files(written, {**origin.files, **_evidence(written, evaluation)}),
    )


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    """The measured numbers, of any target."""
    same = (
        "status", "clean_acc", "robust_acc", "balanced_acc", "robust_balanced_acc", "metrics", "per_class",
        "attacks", "curve", "others", "union_acc", "corruptions", "minimum_norm", "slices",
        "unsliced", "tests", "gates",
    )  # fmt: skip
    numbers = {name: getattr(evaluation, name) for name in same}
    return {**numbers, "suite": evaluation.suite.record, "auroc": evaluation.metrics.clean.auroc}


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


def _evidence(written: RunFolder, evaluation: Evaluation) -> dict[str, Path]:
    """What the evaluation itself left there."""
    paths = {
        "outcomes": written.outcomes,
        "adversarial": written.adversarial,
        "chunks": written.sources,
        "figure": written.figure,
        "mistakes": written.mistakes,
        **{f"outcomes of {one.name}": written.outcomes_of(one.name) for one in evaluation.tests},
    }
    return {name: path for name, path in paths.items() if path.exists()}


def _files(written: RunFolder, paths: dict[str, Path]) -> dict[str, FileRecord]:
    return {name: _file(written, path) for name, path in paths.items()}


def _file(run: RunFolder, path: Path) -> FileRecord:
    if address_of(path) is not None and address_of(run.path) is None:
        return FileRecord(path=named(path), sha256=sha256_of(path))
    relative = Path(os.path.relpath(path.resolve(), run.path.resolve()))
    return FileRecord(path=relative.as_posix(), sha256=sha256_of(path))
