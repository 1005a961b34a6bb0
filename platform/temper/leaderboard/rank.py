"""Boards and ranks: only what is comparable is compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temper.leaderboard.collect import Found
from temper.records import AttackRecord, EvaluationRecord, Promises
from temper.spec import Spec, Threat, format_ratio


class Entry(Spec):
    """One evaluated model on a board; accuracies are fractions 0..1."""

    rank: int | None
    """``None`` for a blocked entry."""
    name: str
    status: str
    reasons: list[str]
    """Why it is blocked."""
    is_pareto: bool
    """No other model here is better in both clean and robust accuracy."""
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
    alpha: float | None
    schedule: str
    adversary: str
    """Training attack and its eps, or ``none``."""
    backbone: str
    num_params: int
    num_trained_params: int
    adapter: str | None
    train_s: float
    created: str
    seed: int
    recipe_hash: str
    attacks: list[AttackRecord]
    promises: Promises
    path: str
    """The record's file."""


class Board(Spec):
    """Models that were measured on the same images, threat model and suite."""

    data_name: str
    fingerprint: str
    classes: list[str]
    num_images: int
    threat: Threat
    suite: str
    suite_version: int
    suite_hash: str
    attack_names: list[str]
    """Attacks that every model met, in their order: the suite's, and gates that were needed everywhere."""
    entries: list[Entry]
    """By rank."""
    blocked: list[Entry]


def rank(found: Sequence[Found]) -> list[Board]:
    """One board per (images, threat model, suite), each ranked by robust, then clean accuracy, then name."""
    groups: dict[tuple[Any, ...], list[Found]] = {}
    for item in found:
        record = item.record
        key = (
            record.data.name,
            record.data.fingerprint,
            record.data.num_images,
            record.data.image_size,
            record.threat.norm,
            record.threat.eps,
            record.suite.name,
            record.suite.version,
            record.suite.hash,
        )
        groups.setdefault(key, []).append(item)
    return [_board(groups[key]) for key in sorted(groups)]


def _board(items: list[Found]) -> Board:
    items = sorted(
        items,
        key=lambda item: (
            -item.record.robust_acc.value,
            -item.record.clean_acc.value,
            item.record.name,
            str(item.path),
        ),
    )
    valid = [item for item in items if item.record.status == "ok"]
    points = [(item.record.clean_acc.value, item.record.robust_acc.value) for item in valid]
    first = items[0].record
    return Board(
        data_name=first.data.name,
        fingerprint=first.data.fingerprint,
        classes=first.data.classes,
        num_images=first.data.num_images,
        threat=first.threat,
        suite=first.suite.name,
        suite_version=first.suite.version,
        suite_hash=first.suite.hash,
        attack_names=_common_attacks([item.record for item in items]),
        entries=[
            _entry(item, place, not _is_dominated(point, points))
            for place, (item, point) in enumerate(zip(valid, points, strict=True), start=1)
        ],
        blocked=[_entry(item, None, False) for item in items if item.record.status != "ok"],
    )


def _common_attacks(records: list[EvaluationRecord]) -> list[str]:
    common = set.intersection(*({attack.name for attack in record.attacks} for record in records))
    return [attack.name for attack in records[0].attacks if attack.name in common]


def _is_dominated(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    clean, robust = point
    return any(c >= clean and r >= robust and (c, r) != point for c, r in points)


def _entry(item: Found, place: int | None, is_pareto: bool) -> Entry:
    record = item.record
    return Entry(
        rank=place,
        name=record.name,
        status=record.status,
        reasons=[f"{gate.name}: {gate.detail}" for gate in record.gates if not gate.passed],
        is_pareto=is_pareto,
        clean_acc=record.clean_acc.value,
        clean_low=record.clean_acc.low,
        clean_high=record.clean_acc.high,
        robust_acc=record.robust_acc.value,
        robust_low=record.robust_acc.low,
        robust_high=record.robust_acc.high,
        balanced_acc=record.balanced_acc,
        robust_balanced_acc=record.robust_balanced_acc,
        **_metric_columns(record),
        source_acc=record.source_acc.value if record.source_acc else None,
        source_retention=record.source_retention,
        **_recipe_columns(record),
        backbone=record.model.backbone,
        num_params=record.model.num_params,
        num_trained_params=record.model.num_trained_params,
        adapter=record.model.adapter,
        train_s=record.cost.train_s,
        created=record.created,
        seed=record.seed,
        recipe_hash=record.recipe_hash,
        attacks=record.attacks,
        promises=record.promises,
        path=str(item.path),
    )


def _metric_columns(record: EvaluationRecord) -> dict[str, float | None]:
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


def _recipe_columns(record: EvaluationRecord) -> dict[str, Any]:
    """What the tables say of the recipe; it may be of another version, so nothing in it is relied on."""
    recipe = record.recipe
    objective = recipe.get("objective") or {}
    adversary = objective.get("adversary")
    alpha = objective.get("alpha")
    return {
        "alpha": float(alpha) if isinstance(alpha, int | float) else None,
        "schedule": describe_schedule(recipe.get("schedule")),
        "adversary": describe_adversary(adversary),
    }


SCHEDULE_FIELDS = {
    "last_k": "k",
    "gradual": "epochs_per_group",
    "lp_ft": "head_frac",
    "roli": "head_frac",
    "phases": "phases",
}


def describe_schedule(schedule: Any) -> str:
    """``gradual(1)`` from ``{kind: gradual, epochs_per_group: 1}``."""
    if not isinstance(schedule, dict):
        return "unknown"
    kind = str(schedule.get("kind", "unknown"))
    value = schedule.get(SCHEDULE_FIELDS.get(kind, ""))
    if isinstance(value, list):
        value = len(value)
    return f"{kind}({value:g})" if isinstance(value, int | float) else kind


def describe_adversary(adversary: Any) -> str:
    """``pgd 8/255`` from a recipe's adversary, ``trades+awp l2 0.5``; ``none`` where there is none."""
    if not isinstance(adversary, dict) or not adversary.get("eps"):
        return "none"
    awp = "+awp" if adversary.get("awp") else ""
    norm = "" if adversary.get("norm", "linf") == "linf" else f" {adversary['norm']}"
    return f"{adversary.get('kind', '?')}{awp}{norm} {format_ratio(float(adversary['eps']))}"


def relative_link(target: Path, out: Path) -> str | None:
    """A link from ``out`` to ``target`` as a quoted relative URL; ``None`` where the file is missing."""
    import os
    from urllib.parse import quote

    if not target.exists():
        return None
    return quote(Path(os.path.relpath(target.resolve(), out.resolve())).as_posix())
