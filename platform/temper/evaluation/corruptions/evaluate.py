"""A model's accuracy under each kind and severity of corruption."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from temper.attacks import MOST_PIXELS, attack_mode, fitting
from temper.batches import as_floats
from temper.errors import DataError, ModelError, UsageError
from temper.evaluation.corruptions.catalogue import GROUPS, corrupt, find_corruption
from temper.evaluation.corruptions.draws import Draws
from temper.evaluation.corruptions.kind import SEVERITIES, Group
from temper.records import CorruptionRecord

OnCorruption = Callable[[str, int, int, int, float], None]
"""Called with kind, severity, tables done, tables to do, and the accuracy under this kind and severity."""


@dataclass(frozen=True)
class CorruptionResult:
    """What was measured; accuracies are fractions 0..1 of the same N images."""

    kinds: tuple[str, ...]
    severities: tuple[int, ...]
    rows: np.ndarray
    """int64 (N,): the images' numbers."""
    correct_clean: np.ndarray
    """bool (N,)."""
    correct: np.ndarray
    """bool (N, kinds x severities): kind after kind, in each the severities; ``columns`` names them."""

    @property
    def columns(self) -> list[str]:
        """Names such as ``snow/3``."""
        return [f"{kind}/{severity}" for kind in self.kinds for severity in self.severities]

    @property
    def table(self) -> dict[str, list[float]]:
        """Kind -> accuracy at each of ``severities``."""
        means = self.correct.mean(0).reshape(len(self.kinds), len(self.severities))
        return dict(zip(self.kinds, means.tolist(), strict=True))

    @property
    def clean_acc(self) -> float:
        return float(self.correct_clean.mean())

    @property
    def mean_acc(self) -> float:
        """Over all kinds and severities."""
        return float(self.correct.mean())

    @property
    def relative(self) -> float:
        """mean_acc / clean_acc; 0 where that is 0."""
        return self.mean_acc / self.clean_acc if self.clean_acc else 0.0

    def record(self, group: Group) -> CorruptionRecord:
        """As it is stored.

        Raises:
            UsageError: not all severities, or not all kinds of the group, were measured.
        """
        missing = [kind for kind in GROUPS[group] if kind not in self.kinds]
        others = [kind for kind in self.kinds if kind not in GROUPS[group]]
        if self.severities != SEVERITIES or missing or others:
            raise UsageError(
                f"a record of the group {group!r} needs severities 1 to 5 of {', '.join(GROUPS[group])}; got "
                f"severities {list(self.severities)} of {', '.join(self.kinds)}"
            )
        return CorruptionRecord(
            group=group,
            kinds=self.table,
            mean_acc=self.mean_acc,
            relative=self.relative,
            num_images=len(self.rows),
        )


def evaluate_corruptions(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    rows: np.ndarray | Tensor,
    *,
    kinds: Sequence[str],
    severities: Sequence[int] = SEVERITIES,
    seed: int,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    max_images: int | None = None,
    on_progress: OnCorruption | None = None,
) -> CorruptionResult:
    """Accuracy of ``model`` (images (B,3,H,W) in [0,1] to logits (B,C)) under ``kinds`` x ``severities``.

    ``images`` uint8 (N,3,H,W), ``labels`` (N,), ``rows`` (N,) the images' own numbers, which with ``seed``
    decide their corruptions: the batch size, the order and the number of workers do not. A module is held
    in eval mode and restored. ``max_images``: that many images, drawn by their rows and the seed.

    Raises:
        UsageError: no such kind or severity, or none at all.
        DataError: no images, or arrays that do not fit together.
        ModelError: logits that are not finite.
    """
    _check_choice(kinds, severities)
    data = _chosen(_as_tensors(images, labels, rows), max_images, seed)
    is_on_cpu = torch.device(device).type == "cpu"
    at_once = min(batch_size, fitting(data[0], MOST_PIXELS)) if is_on_cpu else batch_size
    with torch.no_grad(), attack_mode(model) if isinstance(model, nn.Module) else nullcontext():
        clean = _correct(model, data, at_once, device)
        columns: list[Tensor] = []
        for kind, severity in itertools.product(kinds, severities):
            change = partial(corrupt, kind, severity, seed=seed)
            columns.append(_correct(model, data, at_once, device, change))
            if on_progress:
                share = float(columns[-1].float().mean())
                on_progress(kind, severity, len(columns), len(kinds) * len(severities), share)
    return CorruptionResult(
        kinds=tuple(kinds),
        severities=tuple(severities),
        rows=data[2].numpy(),
        correct_clean=clean.numpy(),
        correct=torch.stack(columns, dim=1).numpy(),
    )


Labelled = tuple[Tensor, Tensor, Tensor]
"""Images, labels and rows."""


def _chosen(data: Labelled, max_images: int | None, seed: int) -> Labelled:
    pixels, targets, numbers = data
    if max_images is None or max_images >= len(numbers):
        return data
    ranks = Draws(numbers, seed, "max_images").uniform(1)[:, 0]
    chosen = ranks.argsort(stable=True)[:max_images].sort().values
    return pixels[chosen], targets[chosen], numbers[chosen]


def _correct(
    model: Callable[[Tensor], Tensor],
    data: Labelled,
    at_once: int,
    device: torch.device | str,
    change: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Which images (N,) are classified as their labels, after ``change`` of images and rows."""
    parts = []
    for start in range(0, len(data[0]), at_once):
        images, labels, rows = (whole[start : start + at_once].to(device) for whole in data)
        shown = images if change is None else change(images, rows)
        parts.append((_predict(model, shown) == labels).cpu())
    return torch.cat(parts)


def _predict(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    logits = model(as_floats(images))
    if not torch.isfinite(logits).all():
        raise ModelError("the model's logits are not finite (NaN or infinity): nothing can be measured on it")
    return logits.argmax(1)


def _check_choice(kinds: Sequence[str], severities: Sequence[int]) -> None:
    for kind in kinds:
        find_corruption(kind)
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong:
        raise UsageError(f"a corruption's severity is 1, 2, 3, 4 or 5, got {wrong[0]!r}")
    for name, chosen in (("kind", kinds), ("severity", severities)):
        if not chosen or len(set(chosen)) < len(chosen):
            raise UsageError(f"expected each {name} of corruption once, and at least one, got {list(chosen)}")


def _as_tensors(
    images: np.ndarray | Tensor, labels: np.ndarray | Tensor, rows: np.ndarray | Tensor
) -> Labelled:
    """On the CPU: images as they are, labels and rows int64."""
    pixels, targets, numbers = (torch.as_tensor(whole).cpu() for whole in (images, labels, rows))
    if not len(pixels):
        raise DataError("no images to corrupt")
    if not len(pixels) == len(targets) == len(numbers):
        raise DataError(
            f"{len(pixels)} images, {len(targets)} labels and {len(numbers)} rows: there must be one of each"
        )
    return pixels, targets.long(), numbers.long()
