"""Evaluating a finished run: record.json and what it rests on, written exactly once."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from temper.cluster.evidence import track_evaluation, write_evidence
from temper.cluster.facts import advised
from temper.cluster.measuring import EVALUATION, measure
from temper.cluster.record import make_record
from temper.cluster.rejection import calibrate_opened, checkpoint_of, material_of, reject
from temper.cluster.subject import Opened, OpenRun, Subject, build_start, siblings_of
from temper.data import Images
from temper.errors import CheckpointError
from temper.evaluation import (
    ChunkStore,
    LinearProbe,
    accuracy_of,
    predict_logits,
)
from temper.evaluation.cascade import OnProgress
from temper.models import TaskModel
from temper.recipe import load_recipe
from temper.records import EvaluationRecord, Proportion, RunFolder, refuse_second, write_once
from temper.records.evaluation import Adaptability
from temper.spec import content_hash
from temper.storage import UNREAD, exists, fetched, mirrored, portable
from temper.training import read_head, read_state


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


@dataclass(frozen=True)
class Start:
    """What the run started from, where that is still known, and how far it came without training."""

    subject: Subject
    model: TaskModel | None
    probe: LinearProbe | None
    source: Images | None

    @classmethod
    def of(cls, subject: Subject) -> "Start":
        weights = subject.state.start_weights
        source = subject.images("source", "test") if "source" in subject.shards else None
        if not (weights is None or weights == "pretrained" or exists(Path(weights))):
            return cls(subject, None, None, source)
        model = build_start(subject.recipe, subject.state.classes, weights).to(subject.device).eval()
        return cls(subject, model.requires_grad_(False), _probe_of(subject, model), source)

    def relatives(self) -> dict[str, Any]:
        """The start with its probe: what fools it may fool its descendant."""
        model, probe = self.model, self.probe
        if model is None or probe is None or self.subject.state.start_weights is None:
            return {}

        def answer(images: Tensor) -> Tensor:
            return probe.logits(model.features(images))

        return {"start with a linear probe": answer}

    def source_accuracy(self, model: TaskModel) -> Proportion | None:
        """Of ``model`` on the source's test images."""
        if self.source is None:
            return None
        return accuracy_of(
            lambda images: model(images, task="source"),
            self.source.images,
            self.source.labels,
            device=self.subject.device,
        )

    def own_source_accuracy(self) -> Proportion | None:
        """Of the start itself; ``None`` where it had learned nothing."""
        if self.model is None or self.subject.state.start_weights is None:
            return None
        return self.source_accuracy(self.model)

    def adaptability(self, balanced_acc: float) -> Adaptability | None:
        """What the target gained over the frozen start."""
        if self.model is None or self.probe is None:
            return None
        probed = self.probe.balanced_acc(self._test_features, self.subject.test.labels)
        return Adaptability(
            frozen_start_balanced_acc=probed, balanced_acc=balanced_acc, gain=balanced_acc - probed
        )

    def probe_correct(self) -> np.ndarray | None:
        """(N,) bool: is the probe right on the test images?"""
        if self.model is None or self.probe is None:
            return None
        answers = self.probe.logits(torch.from_numpy(self._test_features)).argmax(1).numpy()
        return np.asarray(answers == self.subject.test.labels)

    @cached_property
    def _test_features(self) -> np.ndarray:
        """Of the frozen start: (N,D)."""
        assert self.model is not None
        test = self.subject.test
        return predict_logits(self.model.features, test.images, device=self.subject.device).numpy()


def _probe_of(subject: Subject, start: TaskModel) -> LinearProbe:
    """That of the run itself, or, of a run without one, a probe fitted here."""
    run = subject.run
    if run.probe_head.exists():
        head = read_head(run.probe_head)
        return LinearProbe.of_head(head.weight, head.bias)
    train = subject.images("target", "train")
    features = predict_logits(start.features, train.images, device=subject.device).numpy()
    return LinearProbe.fit(features, train.labels)
