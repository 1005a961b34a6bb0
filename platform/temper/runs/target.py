"""What is evaluated: a trained model and its images."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from temper import host
from temper.data import Images, ShardSet, load_images, stratified_subset
from temper.errors import CheckpointError
from temper.models import TaskModel, build_model, load_model_state
from temper.recipe import Recipe, load_recipe
from temper.records import ModelSource, RunFolder
from temper.runs.open_data import open_data
from temper.storage import fetched, named
from temper.training import TrainState, read_state


@dataclass(frozen=True)
class Opened:
    """A model on its device and the images that it is evaluated on."""

    model: nn.Module
    test: Images
    device: torch.device
    code: str = ""
    """The digest of the files that a model from elsewhere was read from."""

    @cached_property
    def source(self) -> ModelSource:
        """What tells the model from another, before anything is asked of it."""
        return ModelSource(weights=digest_of_model(self.model), code=self.code)


def digest_of_model(model: nn.Module) -> str:
    """SHA-256 over the names and values of its parameters and buffers, and its structure."""
    digest = hashlib.sha256(ADDRESS.sub("", str(model)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Of a function that a structure shows: another in each process."""

Opener = Callable[[], Opened]
"""Opens the same model and images in any process; what workers are given."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a trained model and its images."""

    run: RunFolder
    recipe: Recipe
    state: TrainState
    shards: dict[str, ShardSet]
    model: TaskModel
    test: Images
    device: torch.device

    @classmethod
    def open(cls, run: RunFolder, recipe: Recipe, state: TrainState) -> "Subject":
        host.use_cpu(recipe.workers.cpus_per_worker)
        data = open_data(recipe)
        if data.fingerprints != state.fingerprints:
            raise CheckpointError(f"{run.path}: the shards have changed since this run was trained")
        device = choose_device(recipe.workers.use_gpu)
        model = build_start(recipe, state.classes, None)
        load_model_state(model, run.checkpoint / "model.safetensors")
        test = load_images(data.shards["target"], "test", recipe.data.image_size, recipe.data.fit)
        chosen = stratified_subset(test.labels, recipe.evaluation.max_images, recipe.seed)
        test = Images(test.images[chosen], test.labels[chosen], test.rows[chosen])
        return cls(run, recipe, state, data.shards, model.to(device).eval(), test, device)

    def images(self, task: str, split: Any) -> Images:
        return load_images(self.shards[task], split, self.recipe.data.image_size, self.recipe.data.fit)


@dataclass(frozen=True)
class OpenRun:
    """Opens the subject of a finished run, in whichever process it is called."""

    path: Path
    overrides: dict[str, Any]

    def __call__(self) -> Opened:
        run = RunFolder(fetched(self.path))
        subject = Subject.open(run, load_recipe(run.recipe, self.overrides), read_state(run.checkpoint))
        return Opened(subject.model, subject.test, subject.device)


def choose_device(use_gpu: Any) -> torch.device:
    """The GPU where one is there and not refused; from now on this process computes on it in full fp32."""
    if not (use_gpu and torch.cuda.is_available()):
        return torch.device("cpu")
    host.use_gpu()
    return torch.device("cuda")


def build_start(recipe: Recipe, classes: dict[str, list[str]], weights: str | None) -> TaskModel:
    """The recipe's model with the weights that it started from."""
    spec = recipe.model.model_copy(update={"weights": weights})
    return build_model(spec, classes, image_size=recipe.data.image_size, seed=recipe.seed)


def answers_of(
    path: Path, classes: list[str], image_size: int, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The target logits of the finished run under ``path``, a sibling of one for ``classes``.

    Raises:
        CheckpointError: no finished run here, or one for other classes or another image size.
    """
    run = RunFolder(fetched(path))
    state, recipe = read_state(run.checkpoint), load_recipe(run.recipe)
    if state.classes["target"] != classes or recipe.data.image_size != image_size:
        raise CheckpointError(
            f"{named(path)}: no sibling: its classes or its image size ({recipe.data.image_size}) differ"
        )
    model = build_start(recipe, state.classes, None)
    load_model_state(model, run.checkpoint / "model.safetensors")
    frozen = model.to(device).eval().requires_grad_(False)

    def answer(images: Tensor) -> Tensor:
        logits: Tensor = frozen(images)
        return logits

    return answer


def siblings_of(
    paths: Sequence[Path], classes: list[str], image_size: int, device: torch.device
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Other runs whose adversarial examples are tried on a model for ``classes``, by what a gate calls them.

    Raises:
        CheckpointError: as ``answers_of``.
    """
    return {f"sibling {path.name}": answers_of(path, classes, image_size, device) for path in paths}
