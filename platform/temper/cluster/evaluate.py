"""Evaluating a finished run: record.json and outcomes.parquet, written exactly once."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from temper.cluster.environment import describe_environment
from temper.cluster.feeds import open_data
from temper.data import Images, ShardSet, load_images
from temper.errors import CheckpointError, RecordError
from temper.evaluation import (
    Evaluation,
    accuracy_of,
    evaluate_images,
    linear_probe,
    predict_logits,
    suite_for,
    write_outcomes,
)
from temper.evaluation.cascade import OnProgress
from temper.models import TaskModel, build_model, count_params, load_model_state
from temper.recipe import Recipe, load_recipe
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
    write_once,
)
from temper.records.evaluation import Adaptability
from temper.training import TrainState, read_state
from temper.training.feed import stratified_subset


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
    subject = _Subject.open(run, recipe, state)
    evaluation = evaluate_images(
        subject.model,
        subject.test.images,
        subject.test.labels,
        subject.test.rows,
        classes=subject.shards["target"].classes,
        threat=recipe.threat,
        suite=suite_for(recipe.evaluation.suite, recipe.threat.norm),
        seed=recipe.seed,
        batch_size=recipe.evaluation.batch_size,
        device=subject.device,
        on_progress=on_progress,
    )
    source_acc, start_source_acc, adaptability = _against_start(subject, evaluation)
    write_outcomes(written.outcomes, evaluation.outcomes)
    record = _record(subject, evaluation, written, source_acc, start_source_acc, adaptability)
    write_once(written.record, record.model_dump_json(indent=2) + "\n")
    return record


@dataclass(frozen=True)
class _Subject:
    """What is evaluated: a trained model and its images."""

    run: RunFolder
    recipe: Recipe
    state: TrainState
    shards: dict[str, ShardSet]
    model: TaskModel
    test: Images
    device: torch.device

    @classmethod
    def open(cls, run: RunFolder, recipe: Recipe, state: TrainState) -> "_Subject":
        torch.set_num_threads(recipe.workers.cpus_per_worker)
        data = open_data(recipe)
        if data.fingerprints != state.fingerprints:
            raise CheckpointError(f"{run.path}: the shards have changed since this run was trained")
        use_gpu = recipe.workers.use_gpu
        device = torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
        model = _build(recipe, data.classes, None)
        load_model_state(model, run.checkpoint / "model.safetensors")
        test = load_images(data.shards["target"], "test", recipe.data.image_size, recipe.data.fit)
        chosen = stratified_subset(test.labels, recipe.evaluation.max_images, recipe.seed)
        test = Images(test.images[chosen], test.labels[chosen], test.rows[chosen])
        return cls(run, recipe, state, data.shards, model.to(device).eval(), test, device)

    def images(self, task: str, split: Any) -> Images:
        return load_images(self.shards[task], split, self.recipe.data.image_size, self.recipe.data.fit)


def _build(recipe: Recipe, classes: dict[str, list[str]], weights: str | None) -> TaskModel:
    spec = recipe.model.model_copy(update={"weights": weights})
    return build_model(spec, classes, image_size=recipe.data.image_size, seed=recipe.seed)


def _against_start(
    subject: _Subject, evaluation: Evaluation
) -> tuple[Proportion | None, Proportion | None, Adaptability | None]:
    """Source accuracy now and at the start, and what the target gained over the frozen start."""
    classes = {task: shards.classes for task, shards in subject.shards.items()}
    weights = subject.state.start_weights
    is_there = weights is None or weights == "pretrained" or Path(weights).exists()
    start = _build(subject.recipe, classes, weights).to(subject.device).eval() if is_there else None
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


def _probe(subject: _Subject, start: TaskModel) -> float:
    train = subject.images("target", "train")

    def features(images: np.ndarray) -> np.ndarray:
        return predict_logits(start.features, images, device=subject.device).numpy()

    return linear_probe(
        features(train.images), train.labels, features(subject.test.images), subject.test.labels
    )


def _record(
    subject: _Subject,
    evaluation: Evaluation,
    written: RunFolder,
    source_acc: Proportion | None,
    start_source_acc: Proportion | None,
    adaptability: Adaptability | None,
) -> EvaluationRecord:
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
        threat=recipe.threat,
        suite=evaluation.suite.record,
        clean_acc=evaluation.clean_acc,
        robust_acc=evaluation.robust_acc,
        balanced_acc=evaluation.balanced_acc,
        robust_balanced_acc=evaluation.robust_balanced_acc,
        auroc=evaluation.auroc,
        source_acc=source_acc,
        source_retention=_retention(source_acc, start_source_acc),
        per_class=evaluation.per_class,
        attacks=evaluation.attacks,
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


def _data_record(subject: _Subject, task: str) -> DataRecord:
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
