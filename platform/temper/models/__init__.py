"""Pretrained backbones with one head per task."""

from typing import Literal, Self

import torch
from pydantic import Field, field_validator, model_validator

from temper.errors import ModelError
from temper.models.adapters import AnyAdapter
from temper.models.backbones import build_backbone, explain_unknown, is_known_backbone
from temper.models.folding import FoldedModel, folded_copy, folded_model
from temper.models.graphed_model import ReplayedFeatures, ReplayedModel, replayed_features, replayed_model
from temper.models.heads import BinaryHead
from temper.models.initial_weights import load_head, load_source_head, load_start, start_classes
from temper.models.statistics import StartStatistics, batch_norms
from temper.models.task_model import (
    ForwardPass,
    TaskModel,
    count_params,
    set_trainable,
    train_modes,
)
from temper.models.weight_entries import Classifier
from temper.models.weight_files import is_url
from temper.models.weights import load_model_state, save_model
from temper.models.whole_batch import Gather, WholeBatch, draws, reads_whole_batch
from temper.seeds import derive_seed
from temper.spec import Spec

__all__ = [
    "BinaryHead",
    "Classifier",
    "FoldedModel",
    "ForwardPass",
    "Gather",
    "ModelSpec",
    "ReplayedFeatures",
    "ReplayedModel",
    "StartStatistics",
    "TaskModel",
    "WholeBatch",
    "batch_norms",
    "build_model",
    "count_params",
    "draws",
    "folded_copy",
    "folded_model",
    "is_url",
    "load_head",
    "load_model_state",
    "reads_whole_batch",
    "replayed_features",
    "replayed_model",
    "save_model",
    "set_trainable",
    "start_classes",
    "train_modes",
]


class ModelSpec(Spec):
    """A backbone by name, where its weights come from, and what adapts it.

    ``weights``: ``null`` for a random start, ``pretrained`` for a network's own (``temper models``), a URL, a
    ``.safetensors`` or state-dict file, or the folder or ``record.json`` of an earlier run.
    """

    backbone: str
    weights: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the weights file; required for a URL."""
    adapter: AnyAdapter | None = None
    """Trains instead of the backbone's own parameters."""
    is_binary: bool = False
    """Gives a target of two classes one logit and the binary cross-entropy."""
    head: Literal["probe", "start"] | None = None
    """The initial target head. ``probe``: the linear probe, at its optimum on the frozen start.
    ``start``: the weights' own head (of an earlier run for the same classes), else a random one.
    ``null``: ``probe`` where ``weights`` are given, else ``start``.
    """

    @field_validator("backbone")
    @classmethod
    def _is_known(cls, backbone: str) -> str:
        if not is_known_backbone(backbone):
            raise ValueError(explain_unknown(backbone))
        return backbone

    @model_validator(mode="after")
    def _url_has_a_digest(self) -> Self:
        if self.weights is not None and "://" in self.weights and self.sha256 is None:
            raise ValueError("weights from a URL need sha256, the digest of the file (64 hex digits)")
        return self


def build_model(spec: ModelSpec, classes: dict[str, list[str]], *, image_size: int, seed: int) -> TaskModel:
    """The start model: ``classes`` maps each task to its class names; ``seed`` decides the random weights.

    Raises:
        ModelError: weights that are missing, damaged, or of another backbone; an adapter that does not fit
            it; a binary head for a target that has not two classes.
    """
    if spec.is_binary and len(classes["target"]) != 2:
        raise ModelError(
            f"model.is_binary: the target has {len(classes['target'])} classes, not 2; set false"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model"))
        backbone = build_backbone(spec.backbone, image_size, pretrained=spec.weights == "pretrained")
        counts = {task: len(names) for task, names in classes.items()}
        model = TaskModel(backbone, counts, has_binary_target=spec.is_binary)
    if spec.weights == "pretrained":
        load_source_head(model, backbone.classifier)
    elif spec.weights is not None:
        load_start(model, spec.weights, classes, spec.sha256, backbone=spec.backbone, image_size=image_size)
    if spec.adapter is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "adapter"))
            model.attach(spec.adapter)
    # Convolutions over channels_last run up to twice as fast on CPUs, and feed the tensor cores of GPUs.
    return model.to(memory_format=torch.channels_last)
