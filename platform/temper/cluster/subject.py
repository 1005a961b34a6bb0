"""What is evaluated: a trained model and its images."""

from dataclasses import dataclass
from typing import Any

import torch

from temper.cluster.feeds import open_data
from temper.data import Images, ShardSet, load_images, stratified_subset
from temper.errors import CheckpointError
from temper.models import TaskModel, build_model, load_model_state
from temper.recipe import Recipe
from temper.records import RunFolder
from temper.training import TrainState


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
        torch.set_num_threads(recipe.workers.cpus_per_worker)
        data = open_data(recipe)
        if data.fingerprints != state.fingerprints:
            raise CheckpointError(f"{run.path}: the shards have changed since this run was trained")
        use_gpu = recipe.workers.use_gpu
        device = torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
        model = build_start(recipe, state.classes, None)
        load_model_state(model, run.checkpoint / "model.safetensors")
        test = load_images(data.shards["target"], "test", recipe.data.image_size, recipe.data.fit)
        chosen = stratified_subset(test.labels, recipe.evaluation.max_images, recipe.seed)
        test = Images(test.images[chosen], test.labels[chosen], test.rows[chosen])
        return cls(run, recipe, state, data.shards, model.to(device).eval(), test, device)

    def images(self, task: str, split: Any) -> Images:
        return load_images(self.shards[task], split, self.recipe.data.image_size, self.recipe.data.fit)


def build_start(recipe: Recipe, classes: dict[str, list[str]], weights: str | None) -> TaskModel:
    """The recipe's model with the weights that it started from."""
    spec = recipe.model.model_copy(update={"weights": weights})
    return build_model(spec, classes, image_size=recipe.data.image_size, seed=recipe.seed)
