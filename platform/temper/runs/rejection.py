"""Calibrating a model on validation images, and measuring what rejection does on its test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from temper.attacks import attack_mode
from temper.data import Fit, Images, ShardSet, find_images, load_images, read_image
from temper.errors import DataError, ModelError
from temper.evaluation import Evaluation
from temper.evaluation.rejection import (
    RejectionSpec,
    Unlike,
    calibrate_model,
    measure_rejection,
    score_images,
)
from temper.records import Calibration, RejectionRecord, sha256_of
from temper.runs.target import Opened, Subject
from temper.spec import Threat
from temper.storage import exists, fetched, named


@dataclass(frozen=True)
class Material:
    """What rejection is fitted to, and what it is measured on beside test images and attacked ones."""

    coverage: float
    val: Images
    unlike: list[Unlike]
    batch_size: int


def material_of(subject: Subject) -> Material | None:
    """Of a run, where its recipe asks for rejection; read before hours of attacks.

    Raises:
        DataError: images of ``evaluation.rejection.ood`` that cannot be read.
    """
    data, settings = subject.recipe.data, subject.recipe.evaluation
    target = subject.shards["target"]
    found = material_from(settings.rejection, target, data.image_size, data.fit, settings.batch_size)
    if found is not None and not found.unlike and "source" in subject.shards:
        name = subject.shards["source"].manifest.name
        found.unlike.append(Unlike("out of distribution", name, subject.images("source", "test").images))
    return found


def material_from(
    asked: RejectionSpec | None, shards: ShardSet, image_size: int, fit: Fit, batch_size: int
) -> Material | None:
    """Of a model on ``shards``; ``None`` where rejection is not asked for.

    Raises:
        DataError: images of ``evaluation.rejection.ood`` that cannot be read.
    """
    if asked is None:
        return None
    unlike = [] if asked.ood is None else [_unlike(asked.ood, shards, image_size, fit)]
    return Material(asked.coverage, load_images(shards, "val", image_size, fit), unlike, batch_size)


def calibrate_subject(subject: Subject, coverage: float) -> Calibration:
    """Fit to the target's validation images; ``coverage`` is the share of them that thresholds let pass."""
    material = Material(coverage, subject.images("target", "val"), [], subject.recipe.evaluation.batch_size)
    opened = Opened(subject.model, subject.test, subject.device)
    return _calibrate(opened, material, checkpoint_of(subject))


def checkpoint_of(subject: Subject) -> str:
    """SHA-256 of a run's weights."""
    return sha256_of(subject.run.checkpoint / "model.safetensors")


def calibrate_opened(opened: Opened, material: Material | None, checkpoint: str) -> Calibration | None:
    """Fit it before hours of attacks; ``checkpoint`` is the digest of the weights. ``None`` without
    ``material``.

    Raises:
        ModelError: no finite answer to some of the images that rejection is measured on.
    """
    if material is None:
        return None
    others = {one.name: one.images for one in material.unlike}
    with attack_mode(opened.model):
        for name, images in {"validation": material.val.images, "test": opened.test.images, **others}.items():
            try:
                score_images(opened.model, images, batch_size=material.batch_size, device=opened.device)
            except ModelError as problem:
                raise ModelError(
                    f"evaluation.rejection: {problem}. Seen on the images of '{name}', before any attack; "
                    "mend the model, or leave rejection out"
                ) from None
        return _calibrate(opened, material, checkpoint)


def reject(
    opened: Opened, evaluation: Evaluation, material: Material | None, calibration: Calibration | None
) -> RejectionRecord | None:
    """Measure it. ``None`` without ``material``."""
    if material is None or calibration is None:
        return None
    found = evaluation.adversarial
    attacked = attacked_images(found.threat, found.images, found.prediction)
    return measure_on(opened, attacked, evaluation.worst_logits, material, calibration)


def attacked_images(threat: Threat, images: Tensor, predictions: np.ndarray) -> list[Unlike]:
    """Adversarial examples (K,3,H,W) that the model has an answer to; where it has none, the gates block."""
    answered = images[torch.from_numpy(predictions >= 0)]
    return [Unlike("adversarial", threat.label, answered)] if len(answered) else []


def measure_on(
    opened: Opened,
    attacked: Sequence[Unlike],
    worst_logits: Tensor,
    material: Material,
    calibration: Calibration,
) -> RejectionRecord:
    """On test images, those unlike them, and attacked ones; ``worst_logits`` (N,C): answers under attack."""
    with attack_mode(opened.model):
        return measure_rejection(
            opened.model,
            opened.test.images,
            opened.test.labels,
            worst_logits,
            [*material.unlike, *attacked],
            calibration,
            batch_size=material.batch_size,
            device=opened.device,
        )


def _calibrate(opened: Opened, material: Material, checkpoint: str) -> Calibration:
    return calibrate_model(
        opened.model,
        material.val.images,
        material.val.labels,
        checkpoint=checkpoint,
        coverage=material.coverage,
        batch_size=material.batch_size,
        device=opened.device,
    )


def _unlike(place: Path, shards: ShardSet, image_size: int, fit: Fit) -> Unlike:
    folder = fetched(place)
    if exists(place / "manifest.json"):
        images = load_images(ShardSet.open(place), "test", image_size, fit).images
    else:
        images = _loose(find_images([folder]), image_size, fit, shards.manifest.long_side[1])
    return Unlike("out of distribution", folder.name, images)


def _loose(files: Sequence[Path], image_size: int, fit: Fit, long_side: int) -> np.ndarray:
    pixels = []
    for file in files:
        try:
            pixels.append(read_image(file, image_size, fit, long_side))
        except (OSError, ValueError) as problem:
            raise DataError(f"evaluation.rejection.ood: {named(file)}: {problem}") from None
    if not pixels:
        raise DataError("evaluation.rejection.ood: no images there; name a folder of images, or shards")
    return np.stack(pixels)
