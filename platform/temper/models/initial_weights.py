"""Where a model starts from: a weights file, a URL, or an earlier run."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from temper.errors import ModelError
from temper.models.backbones import classifier_path, pretrained_categories
from temper.models.fitting_backbones import fitting_backbones
from temper.models.heads import BinaryHead
from temper.models.positions import resample_positions
from temper.models.previous_run import FormerRun, find_run
from temper.models.task_model import TaskModel
from temper.models.weight_entries import (
    CLASSIFIERS,
    Classifier,
    bare_names,
    find_classifier,
    load_exactly,
    sort_entries,
)
from temper.models.weight_files import check_digest, fetch_weights, is_url, read_weights
from temper.storage import fetched, is_remote, named

logger = logging.getLogger(__name__)


def load_start(
    model: TaskModel,
    weights: str,
    classes: Mapping[str, list[str]],
    sha256: str | None = None,
    *,
    backbone: str | None = None,
    image_size: int = 0,
) -> None:
    """Start ``model`` from a URL, a weights file, an earlier run's folder, or its ``record.json``.

    From a file the backbone is taken, its normalization if it has one, and its classifier as the source
    head if it has as many classes. From a run the backbone and normalization are taken, and each head whose
    classes are those of one of our tasks: the target head of a source run becomes our source head.
    ``sha256``: hex digits of the weights file, required for a URL. An error names the backbones that a file
    fits, where ``backbone`` and ``image_size`` are given.

    Raises:
        ModelError: no such file, not weights, weights of another backbone, or another digest.
    """
    run = find_run(weights)
    if run is not None:
        try:
            _load_run(model, run, classes, sha256)
        except ModelError as problem:
            is_other = backbone is not None and run.backbone not in (None, backbone)
            hint = f"; that run has {run.backbone}: set model.backbone" if is_other else ""
            raise ModelError(f"{problem}{hint}") from None
        return
    path = _local_file(weights, sha256)
    tensors = read_weights(path)
    entries = sort_entries(tensors, model.backbone, weights)
    try:
        load_exactly(model.backbone, resample_positions(entries.backbone, model.backbone, weights), weights)
    except ModelError as problem:
        fitting = fitting_backbones(tensors, backbone, image_size) if backbone else []
        hint = f"; they fit {' and '.join(fitting[:3])}: set model.backbone" if fitting else ""
        raise ModelError(f"{problem}{hint}") from None
    if entries.mean_std is not None:
        model.mean.copy_(entries.mean_std[0])
        model.std.copy_(entries.mean_std[1])
    if not load_source_head(model, entries.classifier) and entries.classifier and "source" in model.heads:
        logger.warning(
            "model.weights: %s: its classifier (%d classes) is not that of the source (%d): the source head "
            "starts at random",
            weights, len(entries.classifier.weight), len(classes["source"]),
        )  # fmt: skip


def start_classes(weights: str | None, backbone: str, sha256: str | None = None) -> list[str] | None:
    """Class names of the start model's own head; ``None`` where it has none.

    Of a run they are those of its target; of a file, which knows no names, ``0`` to ``n-1``; for
    ``pretrained`` nothing is downloaded.

    Raises:
        ModelError: as ``load_start``, of which this reads the same file.
    """
    if weights is None:
        return None
    if weights == "pretrained":
        return pretrained_categories(backbone)
    run = find_run(weights)
    if run is not None:
        return run.classes["target"]
    path = classifier_path(backbone)
    if not path:
        return None
    bare = bare_names(read_weights(_local_file(weights, sha256)), (), weights)
    classifier = find_classifier(bare, [path, *CLASSIFIERS])
    # A single logit tells two classes apart.
    return [str(index) for index in range(max(2, len(classifier.weight)))] if classifier else None


def load_source_head(model: TaskModel, classifier: nn.Linear | Classifier | None) -> bool:
    """Make a classifier on the model's features its source head, where there is one and the shapes fit."""
    if classifier is None or "source" not in model.heads:
        return False
    if isinstance(classifier, nn.Linear):
        weight, bias = classifier.weight, classifier.bias
        # MaxViT's has no bias, whatever the types say.
        classifier = Classifier(weight, weight.new_zeros(len(weight)) if bias is None else bias)
    return load_head(model.heads["source"], classifier)


def load_head(head: nn.Module, classifier: Classifier) -> bool:
    """Copy a linear classifier into ``head`` where the shapes fit; whether they did.

    The logits z0, z1 of two classes and the single logit z1 - z0 are the same classifier, so each form
    fits the other.
    """
    linear = head.linear if isinstance(head, BinaryHead) else head
    assert isinstance(linear, nn.Linear)
    weight, bias = classifier.weight, classifier.bias
    if len(linear.weight) == 1 and len(weight) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    elif len(linear.weight) == 2 and len(weight) == 1:
        weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
    if weight.shape != linear.weight.shape:
        return False
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return True


def _local_file(weights: str, sha256: str | None) -> Path:
    if is_remote(weights):
        path = fetched(Path(weights))
        if not path.is_file():
            raise ModelError(f"model.weights: {named(weights)}: no such file or run folder")
        check_digest(path, sha256)
        return path
    if is_url(weights):
        return fetch_weights(weights, sha256)
    check_digest(Path(weights), sha256)
    return Path(weights)


def _load_run(model: TaskModel, run: FormerRun, classes: Mapping[str, list[str]], sha256: str | None) -> None:
    tensors = run.read(sha256)
    load_exactly(model.backbone, run.backbone_of(tensors, model.backbone), run.where)
    for name in ("mean", "std"):
        if name in tensors:
            getattr(model, name).copy_(tensors[name])
    for task, head in model.heads.items():
        for their_task, their_names in run.classes.items():
            theirs = find_classifier(tensors, [f"heads.{their_task}", f"heads.{their_task}.linear"])
            if theirs is not None and their_names == classes[task]:
                load_head(head, theirs)
