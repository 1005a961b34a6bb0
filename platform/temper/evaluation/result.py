"""An evaluation, put together from what was found on all the images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from temper.evaluation.adversarial import Adversarial
from temper.evaluation.chunk_outcome import CascadeOutcome, ChunkOutcome
from temper.evaluation.corruptions import GROUPS, SEVERITIES, CorruptionResult
from temper.evaluation.metrics import balanced, measure, recalls
from temper.evaluation.outcomes import outcomes_table
from temper.evaluation.plan import EvaluationPlan
from temper.evaluation.suite import Suite
from temper.records import (
    AttackRecord,
    ChunkSource,
    CorruptionRecord,
    FurtherTestRecord,
    GateRecord,
    MetricsRecord,
    MinimumNormRecord,
    Proportion,
    SliceRecord,
    ThreatRecord,
)
from temper.records.evaluation import Consistency, CurvePoint, Robustness
from temper.statistics import fold_spread, wilson


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
    adversarial: Adversarial
    gates: list[GateRecord]
    num_forward: int
    num_backward: int
    seconds: float
    curve: list[CurvePoint] = field(default_factory=list)
    """Robust accuracy over eps in the main norm, where more than one eps was asked for."""
    others: list[ThreatRecord] = field(default_factory=list)
    """Within other threat models."""
    union_acc: Proportion | None = None
    """Within all threat models at once, where there are several."""

    slices: list[SliceRecord] = field(default_factory=list)
    """By value of each attribute of the images, where these are known."""
    tests: list[FurtherTestRecord] = field(default_factory=list)
    outcomes_of_tests: dict[str, pa.Table] = field(default_factory=dict)
    """Of each of ``tests``, by name."""
    unsliced: list[str] | None = None
    """Attributes without slices; ``None`` where the images have no shards."""
    corruptions: list[CorruptionRecord] = field(default_factory=list)
    minimum_norm: MinimumNormRecord | None = None
    worst_logits: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    """(N,C) answers to the images as the attacks of the main cascade left them."""

    sources: list[ChunkSource] = field(default_factory=list)
    """Which model answered for each chunk."""

    @property
    def status(self) -> Literal["ok", "blocked"]:
        """Blocked where a gate failed: the numbers must not be used."""
        return "ok" if all(gate.passed for gate in self.gates) else "blocked"

    def with_outcomes(self, outcomes: pa.Table) -> Self:
        """The same with more columns."""
        return replace(self, outcomes=outcomes)

    @property
    def robustness(self) -> Robustness:
        clean, robust = self.clean_acc.value, self.robust_acc.value
        return Robustness(robust_acc=robust, retained=robust / clean if clean else 0.0)


def main_cascade(found: ChunkOutcome, plan: EvaluationPlan) -> CascadeOutcome:
    """The one that the headline number comes from."""
    return next(one for one in found.cascades if one.threat == plan.main.threat)


def summarise(
    found: ChunkOutcome,
    images: Tensor,
    rows: np.ndarray,
    classes: Sequence[str],
    plan: EvaluationPlan,
    gates: list[GateRecord],
) -> Evaluation:
    """The numbers, from outcomes alone, of ``images`` uint8 (N,3,H,W) with the numbers ``rows`` (N,)."""
    main, labels = main_cascade(found, plan), found.clean.labels
    correct = found.clean.correct
    return Evaluation(
        suite=plan.main.suite,
        **_accuracies(labels, correct, main.standing, list(classes)),
        metrics=_metrics(found, main),
        attacks=main.records(),
        consistency=fold_spread(correct.numpy(), main.standing.numpy(), labels.numpy(), plan.seed),
        outcomes=outcomes_table(rows, found, main),
        adversarial=_kept(main, found, images, rows),
        gates=gates,
        num_forward=found.passes.num_forward,
        num_backward=found.passes.num_backward,
        seconds=found.passes.seconds,
        corruptions=_corruptions(found, plan),
        minimum_norm=_minimum_norm(found, plan),
        worst_logits=main.worst_logits,
        sources=found.sources,
        **_other_threats(found, plan),
    )


def _corruptions(found: ChunkOutcome, plan: EvaluationPlan) -> list[CorruptionRecord]:
    correct = found.clean.correct.numpy()
    return [
        CorruptionResult(
            tuple(GROUPS[group]), SEVERITIES, np.arange(len(correct)), correct, found.corrupted[group].numpy()
        ).record(group)
        for group in plan.corruptions
    ]


def _minimum_norm(found: ChunkOutcome, plan: EvaluationPlan) -> MinimumNormRecord | None:
    """Over the images that are classified correctly; the largest ball searched bounds it from above."""
    if found.minimum_norms is None or not found.clean.correct.any():
        return None
    norms = found.minimum_norms[found.clean.correct].double().sort().values

    def quantile(share: float) -> float | None:
        value = float(norms[min(len(norms) - 1, int(share * len(norms)))])
        return value if np.isfinite(value) else None

    return MinimumNormRecord(
        norm=plan.main.threat.norm,
        num_images=len(norms),
        num_found=int(norms.isfinite().sum()),
        median=quantile(0.5),
        lower_quartile=quantile(0.25),
        upper_quartile=quantile(0.75),
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


def _metrics(found: ChunkOutcome, main: CascadeOutcome) -> MetricsRecord:
    labels = found.clean.labels
    robust = main.worst_logits.argmax(1) == labels
    assert torch.equal(robust, main.standing), "the worst logits contradict the images left standing"
    return MetricsRecord(clean=measure(found.clean.logits, labels), robust=measure(main.worst_logits, labels))


def _kept(main: CascadeOutcome, found: ChunkOutcome, images: Tensor, rows: np.ndarray) -> Adversarial:
    there = main.kept & ~main.standing & found.clean.correct
    saved = main.adversarial[there[main.kept]]
    if not there.any() and main.first.any():  # the sample never is empty where images fell
        there, saved = torch.zeros_like(there), main.first_image[:1]
        there[main.first.nonzero()[0]] = True
    return Adversarial(
        threat=main.threat,
        rows=rows[there.numpy()],
        labels=found.clean.labels[there].numpy(),
        prediction=main.prediction[there].numpy(),
        clean=images[there],
        images=saved,
    )


def _other_threats(found: ChunkOutcome, plan: EvaluationPlan) -> dict[str, Any]:
    num_images, norm = len(found.clean.labels), plan.main.threat.norm
    same = [one for one in found.cascades if one.threat.norm == norm and one.threat.eps in _levels(plan)]
    others = [one for one in found.cascades if any(one.threat == other.threat for other in plan.others)]
    result: dict[str, Any] = {
        "others": [
            ThreatRecord(
                threat=one.threat,
                suite=one.suite,
                robust_acc=wilson(int(one.standing.sum()), num_images),
                attacks=one.records(),
            )
            for one in others
        ]
    }
    if len(same) > 1:
        result["curve"] = [
            CurvePoint(eps=one.threat.eps, robust_acc=wilson(int(one.standing.sum()), num_images))
            for one in same
        ]
    if others:
        standing = torch.stack([one.standing for one in (main_cascade(found, plan), *others)]).all(0)
        result["union_acc"] = wilson(int(standing.sum()), num_images)
    return result


def _levels(plan: EvaluationPlan) -> set[float]:
    return {*plan.curve, plan.main.threat.eps}
