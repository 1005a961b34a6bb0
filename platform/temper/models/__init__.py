"""Pretrained backbones with one head per task."""

import torch
from pydantic import field_validator

from temper.models.backbones import backbone_names, build_backbone
from temper.models.task_model import TaskModel, count_params, set_trainable, train_mode
from temper.models.weights import load_model_state, load_start, save_model
from temper.seeds import derive_seed
from temper.spec import Spec

__all__ = [
    "ModelSpec",
    "TaskModel",
    "backbone_names",
    "build_model",
    "count_params",
    "load_model_state",
    "save_model",
    "set_trainable",
    "train_mode",
]


class ModelSpec(Spec):
    """A backbone by name, and where its weights come from.

    ``weights``: ``null`` for a random start, ``pretrained`` for torchvision's own, a ``.safetensors`` or
    state-dict file, or the folder of a former run.
    """

    backbone: str
    weights: str | None = None

    @field_validator("backbone")
    @classmethod
    def _is_known(cls, backbone: str) -> str:
        if backbone not in backbone_names():
            raise ValueError(f"no backbone {backbone!r}. Backbones: {', '.join(backbone_names())}")
        return backbone


def build_model(spec: ModelSpec, classes: dict[str, list[str]], *, image_size: int, seed: int) -> TaskModel:
    """The start model: ``classes`` maps each task to its class names; ``seed`` decides the random weights.

    Raises:
        ModelError: weights that are missing, damaged, or of another backbone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model"))
        backbone = build_backbone(spec.backbone, image_size, pretrained=spec.weights == "pretrained")
        model = TaskModel(backbone, {task: len(names) for task, names in classes.items()})
    if spec.weights is not None and spec.weights != "pretrained":
        load_start(model, spec.weights, classes)
    # Convolutions over channels_last run up to twice as fast on CPUs, and feed the tensor cores of GPUs.
    return model.to(memory_format=torch.channels_last)
