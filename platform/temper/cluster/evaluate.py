"""Evaluating a finished run: record.json and outcomes.parquet, written exactly once."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from temper.cluster.record import make_record
from temper.cluster.subject import Subject, build_start
from temper.data import Images
from temper.errors import CheckpointError, RecordError
from temper.evaluation import (
    Evaluation,
    accuracy_of,
    evaluate_images,
    linear_probe,
    predict_logits,
    write_outcomes,
)
from temper.evaluation.cascade import OnProgress
from temper.models import TaskModel
from temper.recipe import load_recipe
from temper.records import EvaluationRecord, Proportion, RunFolder, write_once
from temper.records.evaluation import Adaptability
from temper.training import read_state


def evaluate_run(
    path: Path,
    overrides: dict[str, Any] | None = None,
    *,
    out: Path | None = None,
    on_progress: OnProgress | None = None,
) -> EvaluationRecord:
    """Evaluate the best checkpoint of the run folder ``path`` on its test split.

    The record and the outcomes go into ``out``, or beside the checkpoint.

    Raises:
        CheckpointError: no finished run here.
        RecordError: it has a record already.
        ShardError: the images are gone, or not those of the run.
    """
    run = RunFolder(path)
    written = RunFolder(out or path)
    if written.record.exists():
        raise RecordError(
            f"{written.record}: evaluated already, and a record is never overwritten; give --out"
        )
    if not run.recipe.exists():
        raise CheckpointError(
            f"{path}: no run here (no recipe.yaml); `temper train RECIPE --out {path}` makes one"
        )
    state = read_state(run.checkpoint)
    if not state.is_finished:
        raise CheckpointError(f"{path}: this run is not finished; run `temper train` on it again to go on")
    recipe = load_recipe(run.recipe, overrides)
    subject = Subject.open(run, recipe, state)
    evaluation = evaluate_images(
        subject.model,
        subject.test.images,
        subject.test.labels,
        subject.test.rows,
        classes=subject.shards["target"].classes,
        plan=recipe.evaluation.plan(recipe.threat, recipe.seed),
        device=subject.device,
        on_progress=on_progress,
    )
    source_acc, start_source_acc, adaptability = _against_start(subject, evaluation)
    write_outcomes(written.outcomes, evaluation.outcomes)
    record = make_record(subject, evaluation, written, source_acc, start_source_acc, adaptability)
    write_once(written.record, record.model_dump_json(indent=2) + "\n")
    return record


def _against_start(
    subject: Subject, evaluation: Evaluation
) -> tuple[Proportion | None, Proportion | None, Adaptability | None]:
    """Source accuracy now and at the start, and what the target gained over the frozen start."""
    weights = subject.state.start_weights
    is_there = weights is None or weights == "pretrained" or Path(weights).exists()
    start = (
        build_start(subject.recipe, subject.state.classes, weights).to(subject.device).eval()
        if is_there
        else None
    )
    source_acc = start_source_acc = adaptability = None
    if "source" in subject.shards:
        source = subject.images("source", "test")
        source_acc = _source_accuracy(subject.model, source, subject.device)
        if start is not None and weights is not None:
            start_source_acc = _source_accuracy(start, source, subject.device)
    if start is not None:
        probed = _probe(subject, start)
        adaptability = Adaptability(
            frozen_start_balanced_acc=probed,
            balanced_acc=evaluation.balanced_acc,
            gain=evaluation.balanced_acc - probed,
        )
    return source_acc, start_source_acc, adaptability


def _source_accuracy(model: TaskModel, source: Images, device: torch.device) -> Proportion:
    return accuracy_of(
        lambda images: model(images, task="source"), source.images, source.labels, device=device
    )


def _probe(subject: Subject, start: TaskModel) -> float:
    train = subject.images("target", "train")

    def features(images: np.ndarray) -> np.ndarray:
        return predict_logits(start.features, images, device=subject.device).numpy()

    return linear_probe(
        features(train.images), train.labels, features(subject.test.images), subject.test.labels
    )
