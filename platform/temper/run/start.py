"""A run's start, and how good it is without training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from temper.data import Images, ShardSet, Split, load_images
from temper.evaluation import LinearProbe, accuracy_of, predict_logits
from temper.evaluation.evaluate import Relatives
from temper.models import TaskModel, build_model
from temper.recipe import Recipe
from temper.records import Proportion, RunFolder
from temper.records.evaluation import Adaptability
from temper.storage import exists
from temper.training import TrainState, read_head


@dataclass(frozen=True)
class Start:
    """What a run started from, where that is still known, and what it is asked about."""

    model: TaskModel | None
    """``None``: its weights are gone."""
    probe: LinearProbe | None
    has_learned: bool
    """It had weights to start from."""
    source: Images | None
    test: Images
    device: torch.device

    @classmethod
    def open(
        cls,
        run: RunFolder,
        recipe: Recipe,
        state: TrainState,
        shards: Mapping[str, ShardSet],
        test: Images,
        device: torch.device,
    ) -> "Start":
        """Of ``run``, for whose ``test`` images its probe is asked."""
        weights, model, probe = state.start_weights, None, None
        if weights is None or weights == "pretrained" or exists(Path(weights)):
            model = build_start(recipe, state.classes, weights).to(device).eval().requires_grad_(False)
            probe = _probe_of(run, recipe, shards, model, device)
        source = images_of(recipe, shards, "source", "test") if "source" in shards else None
        return cls(model, probe, weights is not None, source, test, device)

    def relatives(self) -> Relatives:
        """The start with its probe: what fools it may fool its descendant."""
        model, probe = self.model, self.probe
        if model is None or probe is None or not self.has_learned:
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
            device=self.device,
        )

    def retention(self, source_acc: Proportion | None) -> float | None:
        """``source_acc`` as a share of the start's own; ``None`` where that was not beyond chance."""
        own = self._source_acc
        if own is None or self.model is None:
            return None
        head = self.model.heads["source"]
        is_known = isinstance(head, nn.Linear) and own.low > 1 / head.out_features
        return self.share_kept(source_acc) if is_known else None

    def share_kept(self, source_acc: Proportion | None) -> float | None:
        """``source_acc`` as a share of the start's own, also where that was chance, as in old records."""
        own = self._source_acc
        return None if own is None or source_acc is None or not own.count else source_acc.value / own.value

    @cached_property
    def _source_acc(self) -> Proportion | None:
        return self.source_accuracy(self.model) if self.model is not None and self.has_learned else None

    def adaptability(self, balanced_acc: float) -> Adaptability | None:
        """What the target gained over the frozen start."""
        if self.model is None or self.probe is None:
            return None
        probed = self.probe.balanced_acc(self._test_features, self.test.labels)
        return Adaptability(
            frozen_start_balanced_acc=probed, balanced_acc=balanced_acc, gain=balanced_acc - probed
        )

    def probe_correct(self) -> np.ndarray | None:
        """(N,) bool: is the probe right on the test images?"""
        if self.model is None or self.probe is None:
            return None
        answers = self.probe.logits(torch.from_numpy(self._test_features)).argmax(1).numpy()
        return np.asarray(answers == self.test.labels)

    @cached_property
    def _test_features(self) -> np.ndarray:
        """Of the frozen start: (N,D)."""
        assert self.model is not None
        return predict_logits(self.model.features, self.test.images, device=self.device).numpy()


def build_start(recipe: Recipe, classes: dict[str, list[str]], weights: str | None) -> TaskModel:
    """The recipe's model with the weights that it started from."""
    spec = recipe.model.model_copy(update={"weights": weights})
    return build_model(spec, classes, image_size=recipe.data.image_size, seed=recipe.seed)


def images_of(recipe: Recipe, shards: Mapping[str, ShardSet], task: str, split: Split) -> Images:
    """A split as the model sees it."""
    return load_images(shards[task], split, recipe.data.view)


def _probe_of(
    run: RunFolder,
    recipe: Recipe,
    shards: Mapping[str, ShardSet],
    start: TaskModel,
    device: torch.device,
) -> LinearProbe:
    """That of the run itself, or, of a run without one, a probe fitted here."""
    if run.probe_head.exists():
        head = read_head(run.probe_head)
        return LinearProbe.of_head(head.weight, head.bias)
    train = images_of(recipe, shards, "target", "train")
    features = predict_logits(start.features, train.images, device=device).numpy()
    return LinearProbe.fit(features, train.labels)
