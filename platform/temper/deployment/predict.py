"""Answers for images: a class, how sure, and whether to trust it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from temper.data import BadImage, find_images, read_noted
from temper.data.opening import pixel_limit
from temper.deployment.classifier import Classifier
from temper.errors import DataError, UsageError
from temper.evaluation.rejection import Scores, judge_scores, score_images
from temper.storage import fetched, named

OnImages = Callable[[int, int], None]
"""Images done, and in all."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    image: str
    label: str
    """The most probable class, or of two that of the threshold; rejected or not."""
    probability: float
    """Of it, in 0..1: calibrated, where the model is."""
    is_rejected: bool | None
    """No class has a probability of ``min_confidence``; ``None``: there is none."""
    is_out_of_distribution: bool | None
    """``energy`` is beyond its threshold."""
    is_suspicious: bool | None
    """``squeezing`` is beyond its threshold, as it is for many adversarial images."""
    energy: float
    squeezing: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Predictions:
    """Answers for images, in their order, and the files that are none."""

    model: str
    is_calibrated: bool
    min_confidence: float | None
    images: list[Prediction]
    bad: list[BadImage]
    classes: list[str]
    threshold: float | None = None
    """Of two classes: the probability from which on the second one is answered; ``None``: the larger one."""
    partly: list[BadImage] = field(default_factory=list)
    """Images that were read in part, such as the first of several frames, or scaled by a guess."""

    @property
    def num_rejected(self) -> int:
        return sum(one.is_rejected is True for one in self.images)


def predict(
    model: Classifier | str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    min_confidence: float | None = None,
    threshold: float | None = None,
    batch_size: int = 64,
    max_pixels: int | None = None,
    use_gpu: bool = True,
    on_progress: OnImages | None = None,
) -> Predictions:
    """Ask ``model``, a run folder, a record or an export, about files and folders of images.

    ``min_confidence`` in 0..1 replaces the threshold of the calibration. ``threshold`` in 0..1 is for two
    classes: the second one is the label from this probability on. Files that are no images are counted
    in ``bad``, with the reason. ``max_pixels`` raises Pillow's limit of their size.

    Raises:
        UsageError: no model there, a threshold that is no probability, or one for more classes than two.
        DataError: no files in the folders that were named.
        TemperError: a model that cannot be opened.
    """
    for name, value in {"min_confidence": min_confidence, "threshold": threshold}.items():
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name}: a probability in 0..1, got {value:g}")
    opened = model if isinstance(model, Classifier) else Classifier.open(model, use_gpu=use_gpu)
    if threshold is not None and len(opened.classes) != 2:
        raise UsageError(
            f"threshold: for models of two classes, {opened.where} has {len(opened.classes)}; "
            "min_confidence (--min-confidence) works with any number"
        )
    given = [images] if isinstance(images, str | Path) else images
    files = find_images([fetched(Path(path)) for path in given])
    if not files:
        listed = ", ".join(named(Path(path)) for path in given)
        raise DataError(f"{listed or 'images'}: no images found; give image files, or folders of them")
    least = _least_confidence(opened, min_confidence)
    is_calibrated = opened.calibration is not None
    found = Predictions(opened.where, is_calibrated, least, [], [], list(opened.classes), threshold)
    with pixel_limit(max_pixels):
        for done, names, pixels, bad in _batches(opened, files, batch_size, found.partly):
            found.bad.extend(bad)
            if names:
                found.images.extend(_ask(opened, names, np.stack(pixels), least, threshold))
            if on_progress is not None:
                on_progress(done, len(files))
    return found


def _batches(
    opened: Classifier, files: Sequence[Path], batch_size: int, partly: list[BadImage]
) -> Iterator[tuple[int, list[str], list[np.ndarray], list[BadImage]]]:
    """Files done, names and pixels uint8 (3,S,S) of the images among the last of them, and what was none.

    ``partly`` receives those of which something is to be said.
    """
    for start in range(0, len(files), batch_size):
        names, pixels, bad = [], [], []
        part = files[start : start + batch_size]
        for file in part:
            try:
                image, note = read_noted(file, opened.view, opened.long_side, opened.depth)
                pixels.append(image)
                names.append(named(file))
                if note is not None:
                    partly.append(BadImage(path=named(file), reason=note))
            except (OSError, ValueError) as problem:
                bad.append(BadImage(path=named(file), reason=_reason(problem)))
        yield start + len(part), names, pixels, bad


def _reason(problem: OSError | ValueError) -> str:
    told = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return told or type(problem).__name__


def _least_confidence(opened: Classifier, min_confidence: float | None) -> float | None:
    if min_confidence is not None or opened.calibration is None:
        return min_confidence
    return opened.calibration.min_confidence


def _ask(
    opened: Classifier,
    names: Sequence[str],
    pixels: np.ndarray,
    least: float | None,
    threshold: float | None,
) -> Iterator[Prediction]:
    scores = score_images(opened.model, pixels, batch_size=len(pixels), device=opened.device)
    calibration = opened.calibration
    probabilities = (scores.logits / (calibration.temperature if calibration else 1.0)).softmax(1)
    flags = _flags(scores, opened)
    for index, name in enumerate(names):
        row = probabilities[index].tolist()
        best = int(probabilities[index].argmax()) if threshold is None else int(row[1] >= threshold)
        yield Prediction(
            image=name,
            label=opened.classes[best],
            probability=row[best],
            is_rejected=None if least is None else max(row) < least,
            is_out_of_distribution=_at(flags, "energy", index),
            is_suspicious=_at(flags, "squeezing", index),
            energy=float(scores.energy[index]),
            squeezing=float(scores.squeezing[index]),
            probabilities=dict(zip(opened.classes, row, strict=True)),
        )


def _flags(scores: Scores, opened: Classifier) -> dict[str, Tensor] | None:
    return None if opened.calibration is None else judge_scores(scores, opened.calibration)


def _at(flags: dict[str, Tensor] | None, name: str, index: int) -> bool | None:
    return None if flags is None else bool(flags[name][index])


def as_document(found: Predictions) -> dict[str, Any]:
    """As `temper predict --json` prints it."""
    return {
        "model": found.model,
        "is_calibrated": found.is_calibrated,
        "min_confidence": found.min_confidence,
        "threshold": found.threshold,
        "num_images": len(found.images),
        "num_rejected": found.num_rejected,
        "num_bad": len(found.bad),
        "images": [vars(one) for one in found.images],
        "bad": [one.model_dump() for one in found.bad],
        "partly": [one.model_dump() for one in found.partly],
    }
