"""The target of an evaluation: a model, its images, and what a record says about both."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from temper.advice import Facts
from temper.data import SPLITS, Images, ImageView, ShardSet, Split
from temper.errors import RecipeError
from temper.evaluation import Evaluation, EvaluationPlan, EvaluationSpec
from temper.evaluation.evaluate import Relatives
from temper.evaluation.fresh import Fresh, copies_of
from temper.records import (
    DataRecord,
    EvaluationRecord,
    GateRecord,
    ModelRecord,
    ModelSource,
    Proportion,
    RunFolder,
)
from temper.records.evaluation import Adaptability
from temper.run.leakage import leakage_gate, leakage_gates_of_tests
from temper.run.material import Material, material_from
from temper.run.test_sets import chosen_from, load_test, split_of
from temper.spec import Threat, content_hash
from temper.training import TrainState

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Of a function that a structure shows: another in each process."""


@dataclass(frozen=True)
class Claim:
    """What a record is about."""

    name: str
    seed: int
    recipe: dict[str, Any]
    data: DataRecord
    threat: Threat


@dataclass(frozen=True)
class Origin:
    """What a record says of where its model comes from; of a run, also of its source and its training."""

    recipe_hash: str
    model: ModelRecord
    source: DataRecord | None = None
    source_acc: Proportion | None = None
    source_retention: float | None = None
    adaptability: Adaptability | None = None
    training: TrainState | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationTarget:
    """A model on its device, the images that it is evaluated on, and how.

    As it stands, a model in memory; runs and models from files know more of themselves.
    """

    model: nn.Module = field(repr=False)
    test: Images = field(repr=False)
    device: torch.device
    claim: Claim
    settings: EvaluationSpec
    view: ImageView
    """What the model sees of an image."""
    shards: Mapping[str, ShardSet] = field(default_factory=dict)
    """By task; none where the images are arrays."""
    kin: Relatives = field(default_factory=dict, repr=False)
    """Models whose adversarial examples are tried on this one, by what a gate calls them."""
    num_threads: int = 1
    use_gpu: Any = "auto"
    code: str = ""
    """The digest of the files that a model from elsewhere was read from."""
    tests: Mapping[str, ShardSet] = field(default_factory=dict)
    """Further test sets by name."""
    on_test: str | None = None
    """Which of them the images are; ``None``: the main ones."""

    def __post_init__(self) -> None:
        """Check that the images suffice for the settings.

        Raises:
            RecipeError: rejection, but no validation images.
        """
        if self.settings.rejection is not None and "target" not in self.shards:
            raise RecipeError(
                "evaluation.rejection: it needs validation images, which arrays in memory do not have; "
                "give shards, or leave it out"
            )

    @cached_property
    def plan(self) -> EvaluationPlan:
        """All that it is asked and attacked with.

        Raises:
            RecipeError: a suite that is not there, or does not fit.
        """
        return self.settings.plan(self.claim.threat, self.claim.seed)

    @cached_property
    def source(self) -> ModelSource:
        """The model's identity, taken before its first query."""
        return ModelSource(weights=digest_of_model(self.model), code=self.code)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, as a calibration names them."""
        return self.source.weights

    @property
    def identity(self) -> dict[str, str]:
        """All that the outcome of a chunk depends on, but for the plan."""
        return {
            "model": self.source.weights,
            "code": self.source.code,
            "images": fingerprint_of(self.test),
            "rows": content_hash(self.test.rows.tolist()),
        }

    @property
    def opener(self) -> "Opener":
        """Opens the same in another process."""
        return InMemory(replace(self, kin={}))  # which stay where they are asked

    def on(self, name: str) -> Self:
        """The same model on the further test set ``name``, whose images are read once."""
        if name not in self._on:
            self._on[name] = self._opened_on(name)
        return self._on[name]

    @cached_property
    def _on(self) -> dict[str, Self]:
        return {}

    def _opened_on(self, name: str) -> Self:
        shards, data = self.tests[name], self.claim.data
        images = load_test(shards, data.classes, self.view)
        test = chosen_from(images, self.settings.max_images, self.claim.seed)
        described = data_record(shards, split_of(shards) or "test", len(test.labels), data.image_size)
        described = described.model_copy(update={"classes": data.classes})
        return replace(
            self,
            test=test,
            claim=replace(self.claim, data=described),
            shards={**self.shards, "target": shards},
            tests={},
            on_test=name,
        )

    def fresh(self) -> Fresh | None:
        """Makes models that were never queried; call it before this one is. ``None``: it cannot be copied."""
        return copies_of(self.model)

    def relatives(self) -> Relatives:
        """Models whose adversarial examples are tried on this one, by what a gate calls them."""
        return self.kin

    def material(self) -> Material | None:
        """What rejection is fitted to and measured on, where it is asked for.

        Raises:
            DataError: images of ``evaluation.rejection.ood`` that cannot be read.
        """
        asked, batch_size = self.settings.rejection, self.settings.batch_size
        shards = self.shards.get("target")
        return material_from(asked, shards, self.view, batch_size) if asked and shards else None

    def origin(self, balanced_acc: float) -> Origin:
        """Where the model comes from; ``balanced_acc`` is what it came to."""
        model = ModelRecord(
            backbone=type(self.model).__name__,
            num_params=sum(parameter.numel() for parameter in self.model.parameters()),
            num_trained_params=0,
        )
        return Origin(content_hash({"model": self.source.weights}), model)

    def informed(self, facts: Facts, record: EvaluationRecord) -> Facts:
        """``facts`` for advice, with what only a run knows of itself."""
        return facts

    def leakage(self) -> list[GateRecord]:
        """The gates on images that the model may have been trained or chosen on; none for arrays."""
        shards, allowed = self.shards.get("target"), self.settings.allow_leakage
        split = next(name for name in SPLITS if name == self.claim.data.split)
        if shards is None:
            return []
        gates = []
        if split != "train":
            earlier = [name for name in SPLITS[:2] if name != split]
            gates.append(leakage_gate(shards, self.test.rows, split, earlier, allowed))
        tests = {name: self.on(name).test for name in self.tests}
        return [*gates, *leakage_gates_of_tests(shards, tests, self.view, allowed)]

    def track(self, written: RunFolder, evaluation: Evaluation) -> None:
        """Show the numbers wherever a run is tracked."""


Opener = Callable[[], EvaluationTarget]
"""Opens the same model and images in any process; what workers are given."""


@dataclass(frozen=True)
class InMemory:
    """A target that travels to workers as it is."""

    target: EvaluationTarget

    def __call__(self) -> EvaluationTarget:
        return self.target


def data_record(shards: ShardSet, split: Split, num_images: int, image_size: int) -> DataRecord:
    """What a record says of images from ``shards``."""
    return DataRecord(
        name=shards.manifest.name,
        fingerprint=shards.fingerprint,
        classes=shards.classes,
        split=split,
        num_images=num_images,
        image_size=image_size,
    )


def digest_of_model(model: nn.Module) -> str:
    """SHA-256 over the names and values of its parameters and buffers, and its structure."""
    digest = hashlib.sha256(ADDRESS.sub("", str(model)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of(images: Images) -> str:
    """16 hex digits over the pixels and the labels of images that come from no shards."""
    digest = hashlib.sha256(images.images.tobytes())
    digest.update(images.labels.tobytes())
    return content_hash([digest.hexdigest(), list(images.images.shape)])
