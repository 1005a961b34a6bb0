"""What a run started from, and how far that comes without training."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from temper.data import Images
from temper.evaluation import LinearProbe, accuracy_of, predict_logits
from temper.models import TaskModel
from temper.records import Proportion
from temper.records.evaluation import Adaptability
from temper.runs.target import Subject, build_start
from temper.storage import exists
from temper.training import read_head


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
