"""One line of a board: what a record says of its model, and how far that can be trusted."""

from typing import Any, Literal

from pydantic import Field

from temper.leaderboard.collect import FoundRecord
from temper.leaderboard.describe import adversary_of, alpha_of, describe_baseline, describe_schedule
from temper.records import (
    AttackRecord,
    CorruptionRecord,
    CurvePoint,
    EvaluationRecord,
    FurtherTestRecord,
    Promises,
    Proportion,
    RejectionRecord,
    SliceRecord,
    worst_slice,
)
from temper.spec import Spec, Threat

Status = Literal["verified", "ok", "no outcomes", "unverified", "blocked"]
"""``verified``: its submission was checked with its model; ``ok``: its outcomes say what it says; ``no
outcomes``: ranked by its totals alone. ``unverified`` and ``blocked`` are not ranked, and say why."""
RANKED: tuple[Status, ...] = ("verified", "ok", "no outcomes")


class OtherThreat(Spec):
    """Robust accuracy within a further threat model."""

    threat: Threat
    robust_acc: Proportion


class Entry(Spec):
    """One evaluated model on a board; accuracies are fractions 0..1."""

    rank: int | None
    """Shared by those that cannot be told apart; ``None`` for an entry that is not ranked."""
    is_tied: bool
    slug: str
    """``models/<slug>.html`` is its card."""
    name: str
    status: Status
    reasons: list[str]
    """Why it is not ranked."""
    is_pareto: bool
    """No other ranked model here is better in both clean and robust accuracy."""
    clean_acc: float
    clean_low: float
    clean_high: float
    robust_acc: float
    robust_low: float
    robust_high: float
    balanced_acc: float
    robust_balanced_acc: float
    macro_f1: float | None
    """These five are ``None`` in older records (``auroc``: where a class has no image)."""
    robust_macro_f1: float | None
    auroc: float | None
    robust_auroc: float | None
    ece: float | None
    robust_ece: float | None
    source_acc: float | None
    source_retention: float | None
    corruption_acc: float | None
    """Mean over the groups of corruptions."""
    ood_auroc: float | None = None
    """How well the energy tells images of other classes, the mean over their sets."""
    adversarial_auroc: float | None = None
    """How well feature squeezing tells adversarial images."""
    aurc: float | None = None
    """Area under the risk-coverage curve. These three are ``None`` where rejection was not measured."""
    rejection: RejectionRecord | None = None
    tests: list[FurtherTestRecord] = Field(default_factory=list)
    """On further test sets, such as other sites; empty where there are none."""
    worst_slice: SliceRecord | None = None
    """By robust accuracy; ``None`` without slices of enough images."""
    different_slices: list[SliceRecord] = Field(default_factory=list)
    """Those with a gap to the other images that is more than chance after Holm's correction."""
    union_acc: float | None
    """Robust within the board's threat model and all ``others`` at once."""
    alpha: float | None
    schedule: str
    adversary: str
    """Training attack and its eps, or ``none``."""
    backbone: str
    num_params: int
    num_trained_params: int
    adapter: str | None
    baseline: str | None = None
    """What kind of baseline it is, such as ``linear probe``; ``None`` for a model that competes."""
    train_s: float
    evaluate_s: float
    gpu_s: float
    created: str
    seed: int
    recipe_hash: str
    attacks: list[AttackRecord]
    promises: Promises
    per_class: dict[str, float]
    """Class -> robust accuracy."""
    curve: list[CurvePoint]
    others: list[OtherThreat]
    corruptions: list[CorruptionRecord]
    path: str
    """The record's file."""

    @property
    def full_name(self) -> str:
        """With what kind of baseline it is."""
        return self.name if self.baseline is None else f"{self.name} ({self.baseline})"


def build_entry(found: FoundRecord, status: Status, reasons: list[str]) -> Entry:
    """The line of a record, not ranked yet."""
    record = found.record
    return Entry(
        rank=None,
        is_tied=False,
        slug=found.slug,
        name=record.name,
        status=status,
        reasons=reasons,
        is_pareto=False,
        **_accuracies(record),
        **_metrics(record),
        source_acc=record.source_acc.value if record.source_acc else None,
        source_retention=record.source_retention,
        corruption_acc=_mean([group.mean_acc for group in record.corruptions]),
        worst_slice=worst_slice(record.slices),
        different_slices=[one for one in record.slices if one.is_different],
        **_rejection(record.rejection),
        tests=record.tests,
        union_acc=record.union_acc.value if record.union_acc else None,
        alpha=alpha_of(record.recipe),
        schedule=describe_schedule(record.recipe.get("schedule")),
        adversary=adversary_of(record.recipe),
        backbone=record.model.backbone,
        num_params=record.model.num_params,
        num_trained_params=record.model.num_trained_params,
        adapter=record.model.adapter,
        baseline=describe_baseline(record.recipe),
        **{name: getattr(record.cost, name) for name in ("train_s", "evaluate_s", "gpu_s")},
        created=record.created,
        seed=record.seed,
        recipe_hash=record.recipe_hash,
        attacks=record.attacks,
        promises=record.promises,
        per_class={name: values.get("robust_acc", 0.0) for name, values in record.per_class.items()},
        curve=sorted(record.curve, key=lambda point: point.eps),
        others=[OtherThreat(threat=one.threat, robust_acc=one.robust_acc) for one in record.others],
        corruptions=record.corruptions,
        path=str(found.path),
    )


def _accuracies(record: EvaluationRecord) -> dict[str, float]:
    return {
        "clean_acc": record.clean_acc.value,
        "clean_low": record.clean_acc.low,
        "clean_high": record.clean_acc.high,
        "robust_acc": record.robust_acc.value,
        "robust_low": record.robust_acc.low,
        "robust_high": record.robust_acc.high,
        "balanced_acc": record.balanced_acc,
        "robust_balanced_acc": record.robust_balanced_acc,
    }


def _metrics(record: EvaluationRecord) -> dict[str, Any]:
    clean = record.metrics.clean if record.metrics else None
    robust = record.metrics.robust if record.metrics else None
    return {
        "macro_f1": clean.macro_f1 if clean else None,
        "robust_macro_f1": robust.macro_f1 if robust else None,
        "auroc": record.auroc,
        "robust_auroc": robust.auroc if robust else None,
        "ece": clean.ece if clean else None,
        "robust_ece": robust.ece if robust else None,
    }


def _rejection(record: RejectionRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    return {
        "ood_auroc": record.auroc_of("out of distribution", "energy"),
        "adversarial_auroc": record.auroc_of("adversarial", "squeezing"),
        "aurc": record.aurc,
        "rejection": record,
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
