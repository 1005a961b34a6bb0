"""Evaluating one model on one set of images within one threat model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from temper.evaluation.cascade import CascadeOutcome, OnProgress, run_cascade
from temper.evaluation.gates import check_cascade, check_model
from temper.evaluation.metrics import balanced, measure, recalls
from temper.evaluation.outcomes import outcomes_table
from temper.evaluation.passes import held_still
from temper.evaluation.statistics import fold_spread, wilson
from temper.evaluation.suite import Suite
from temper.records import AttackRecord, GateRecord, MetricsRecord, Proportion
from temper.records.evaluation import Consistency, Robustness
from temper.spec import Threat

NUM_GATE_IMAGES = 32


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; accuracies are fractions 0..1 of all the images."""

    suite: Suite
    clean_acc: Proportion
    robust_acc: Proportion
    balanced_acc: float
    robust_balanced_acc: float
    metrics: MetricsRecord
    per_class: dict[str, dict[str, float]]
    attacks: list[AttackRecord]
    consistency: Consistency | None
    outcomes: pa.Table
    gates: list[GateRecord]
    num_forward: int
    num_backward: int
    seconds: float

    @property
    def status(self) -> Literal["ok", "blocked"]:
        """Blocked where a gate failed: the numbers must not be used."""
        return "ok" if all(gate.passed for gate in self.gates) else "blocked"

    @property
    def robustness(self) -> Robustness:
        clean, robust = self.clean_acc.value, self.robust_acc.value
        return Robustness(robust_acc=robust, retained=robust / clean if clean else 0.0)


def evaluate_images(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    classes: Sequence[str],
    threat: Threat,
    suite: Suite,
    seed: int,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Clean and robust accuracy of ``model`` (images (B,3,H,W) in [0,1] to logits (B,C)).

    ``images`` uint8 (N,3,H,W), ``labels`` and ``rows`` int64 (N,). The model is held still and left
    exactly as it was. The same seed gives the same outcomes.

    Raises:
        ModelError: logits that are not finite.
    """
    started = time.perf_counter()
    device = torch.device(device)
    pixels, targets = (
        torch.from_numpy(np.ascontiguousarray(images)),
        torch.from_numpy(labels.astype(np.int64)),
    )
    with held_still(model) as counted:
        few = slice(0, NUM_GATE_IMAGES)
        gates = check_model(
            counted, pixels[few].to(device).float() / 255, targets[few].to(device), threat.norm
        )
        logits = predict_logits(counted, images, batch_size=batch_size, device=device)
        correct = logits.argmax(1) == targets
        cascade = run_cascade(
            counted,
            pixels,
            targets,
            logits,
            suite.members,
            threat,
            seed=seed,
            batch_size=batch_size,
            device=device,
            on_progress=on_progress,
        )
    return Evaluation(
        suite=suite,
        **_accuracies(targets, correct, cascade.standing, list(classes)),
        metrics=_metrics(logits, cascade, targets),
        attacks=[member.record for member in cascade.members],
        consistency=fold_spread(correct.numpy(), cascade.standing.numpy(), labels, seed),
        outcomes=outcomes_table(rows, targets, logits.argmax(1), cascade),
        gates=gates + check_cascade(cascade),
        num_forward=counted.num_forward,
        num_backward=counted.num_backward,
        seconds=time.perf_counter() - started,
    )


def _accuracies(labels: Tensor, correct: Tensor, standing: Tensor, classes: list[str]) -> dict[str, Any]:
    clean, robust = (recalls(mask, labels, len(classes)) for mask in (correct, standing))
    return {
        "clean_acc": wilson(int(correct.sum()), len(labels)),
        "robust_acc": wilson(int(standing.sum()), len(labels)),
        "balanced_acc": balanced(correct, labels, len(classes)),
        "robust_balanced_acc": balanced(standing, labels, len(classes)),
        "per_class": {
            classes[label]: {"clean_acc": clean[label], "robust_acc": robust[label]} for label in clean
        },
    }


def _metrics(logits: Tensor, cascade: CascadeOutcome, labels: Tensor) -> MetricsRecord:
    robust = cascade.worst_logits.argmax(1) == labels
    assert torch.equal(robust, cascade.standing), "the worst logits contradict the images left standing"
    return MetricsRecord(clean=measure(logits, labels), robust=measure(cascade.worst_logits, labels))


@torch.no_grad()
def predict_logits(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Tensor:
    """What ``model`` answers to uint8 images (N,3,H,W), collected on the CPU as (N, ...)."""
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
        parts.append(model(batch.to(device).float() / 255).cpu())
    return torch.cat(parts)


def accuracy_of(
    model: Callable[[Tensor], Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Proportion:
    """Clean accuracy on uint8 images (N,3,H,W) and labels (N,)."""
    prediction = predict_logits(model, images, batch_size=batch_size, device=device).argmax(1).numpy()
    return wilson(int((prediction == labels).sum()), len(labels))
